from streaming_vlm_mlx.errors import SvmError, log_limit


def test_an_error_stays_a_few_lines_long() -> None:
    said = str(SvmError(f"clip.json: there is no setting {'x' * 50_000!r}; choose another file."))
    assert len(said) < 2000
    assert said.startswith("clip.json: there is")
    assert said.endswith("; choose another file.")


def test_each_is_made_once_and_only_so_many() -> None:
    heard = list[str]()
    say = log_limit(heard.append, 2)
    for text in ("a", "a", "b", "a", "c", "d", "b"):
        say(text)
    assert heard == ["a", "b", "Further messages are not shown."]
