import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.data.json_fields import line_starts, read_lines


@given(st.lists(st.sampled_from(["", "a", "bc", "def\r"])), st.booleans(), st.integers(1, 9))
def test_lines_are_found_as_a_file_is_split(parts: list[str], ended: bool, block: int) -> None:
    content = "\n".join(parts) + "\n" * ended
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        path.write_text(content, newline="")
        starts, numbers = line_starts(path, block)
        found = dict(zip(numbers.tolist(), read_lines(path, starts), strict=True))
    split = content.split("\n")
    want = {n: line for n, line in enumerate(split, 1) if len(line + "\n" * (n < len(split))) > 1}
    assert {n: line.decode().removesuffix("\n") for n, line in found.items()} == want
