import numpy

from streaming_vlm_mlx import backend as versions


def test_versions_name_what_the_session_ran_on(monkeypatch):
    found = versions.installed_versions()
    assert found["numpy"] == numpy.__version__
    assert {"python", "mlx", "av"} <= set(found)
    monkeypatch.setattr(versions, "ENGINE", ("numpy", "no-such-package"))
    assert list(versions.installed_versions()) == ["python", "numpy"]
