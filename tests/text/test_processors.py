from importlib.util import find_spec

import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.text import processors

TEXT = "<|im_start|>user\n日本 ⚽ it's 12<|im_end|>"


def test_transformers_tokenizer_has_the_same_ids(tokenizer, tmp_path):
    assert processors.transformers_tokenizer()(TEXT)["input_ids"] == tokenizer.encode_markup(TEXT)
    assert processors.transformers_tokenizer(tmp_path)(TEXT)["input_ids"] == tokenizer.encode_markup(TEXT)


def test_a_folder_that_transformers_refuses_is_named(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(SvmError, match=r"gives no tokenizer\.json") as caught:
        processors.transformers_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_extra_is_named_where_torch_is_absent(monkeypatch):
    monkeypatch.setattr(processors, "find_spec", lambda name: None if name == "torchvision" else object())
    with pytest.raises(SvmError, match=r"needs torchvision; pip install 'svm-tui\[parity\]'"):
        processors.processor()


@pytest.mark.skipif(not (find_spec("torch") and find_spec("torchvision")), reason="needs torch and torchvision")
def test_the_processor_writes_the_chat_template():
    chat = [{"role": "previous text", "content": ""}, {"role": "user", "content": [{"type": "video"}]}]
    text = processors.processor().apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>previous text\n")
    assert text.endswith("<|vision_start|><|video_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n")
