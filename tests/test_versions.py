from streaming_vlm_mlx import versions
from streaming_vlm_mlx.versions import installed_versions


def test_versions_name_what_the_session_ran_on(monkeypatch):
    versions = installed_versions()
    assert versions["numpy"] == __import__("numpy").__version__
    assert {"python", "mlx", "av"} <= set(versions)
    monkeypatch.setattr(versions, "ENGINE", ("numpy", "no-such-package"))
    assert list(installed_versions()) == ["python", "numpy"]
