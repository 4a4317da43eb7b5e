from streaming_vlm_mlx.errors import log_limit


def test_each_is_made_once_and_only_so_many() -> None:
    heard = list[str]()
    say = log_limit(heard.append, 2)
    for text in ("a", "a", "b", "a", "c", "d", "b"):
        say(text)
    assert heard == ["a", "b", "Further messages are not shown."]
