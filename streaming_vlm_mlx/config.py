"""Settings of a model and of a stream: one frozen dataclass a part, read from a dictionary or YAML.

Model parts have Hugging Face's field names. `models.families` reads a hub folder's ``config.json`` into them.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from streaming_vlm_mlx.config_io import FromDict, demand, demand_sizes
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.quantization_config import QuantizationConfig

# The most frames a second that a model is shown; a camera in slow motion takes fewer.
MOST_FPS = 1000

Positions = Literal["shrink", "append"]
Mode = Literal["streaming", "recompute", "window", "full"]
Style = Literal["inference", "training", "livecc", "instruct"]
Family = Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]


@dataclass(frozen=True)
class VisionConfig(FromDict):
    """Sizes of the vision tower, under Qwen2.5-VL's and Qwen3-VL's names; the defaults are Qwen2.5-VL 7B's.

    Attributes:
        tokens_per_second: temporal positions in a second of video; null for one position a temporal step.
        window_size: pixels along the side of an attention window; null for full attention in every block.
        fullatt_block_indexes: blocks with full attention in a tower with windows.
        num_position_embeddings: learned positions, a square number of them; null for none.
        deepstack_visual_indexes: blocks behind which features are taken for the first decoder layers (DeepStack).
    """

    depth: int = 32
    hidden_size: int = 1280
    intermediate_size: int = 3420
    num_heads: int = 16
    in_channels: int = 3
    patch_size: int = 14
    spatial_merge_size: int = 2
    temporal_patch_size: int = 2
    tokens_per_second: float | None = 2.0
    window_size: int | None = 112
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)
    num_position_embeddings: int | None = None
    deepstack_visual_indexes: tuple[int, ...] = ()
    out_hidden_size: int = 3584
    hidden_act: str = "silu"

    @property
    def features_width(self) -> int:
        """Width of the features of a merged patch: its embedding and its DeepStack features side by side."""
        return (1 + len(self.deepstack_visual_indexes)) * self.out_hidden_size

    def time_step(self, seconds: float) -> float:
        """Return the distance in positions between two temporal steps of a video that are `seconds` apart."""
        return 1.0 if self.tokens_per_second is None else self.tokens_per_second * seconds

    def check(self) -> None:
        """Check that sizes fit together.

        Raises:
            SvmError: names the settings that disagree.
        """
        demand_sizes(self, "vision_config")
        if self.hidden_size % (4 * self.num_heads):
            raise SvmError(
                f"config: vision hidden_size {self.hidden_size} is not a multiple of 4 × {self.num_heads} heads."
            )
        if self.window_size is not None and self.window_size < self.patch_size * self.spatial_merge_size:
            raise SvmError(
                f"config: vision window_size {self.window_size} is less than a merged patch "
                f"({self.patch_size * self.spatial_merge_size} pixels)."
            )
        places = self.num_position_embeddings
        demand(
            places is None or math.isqrt(places) ** 2 == places,
            "config: vision num_position_embeddings",
            places,
            "a square number",
        )
        taken = self.deepstack_visual_indexes
        demand(
            len(set(taken)) == len(taken) and all(0 <= index < self.depth for index in taken),
            "config: vision deepstack_visual_indexes",
            list(taken),
            f"different blocks of 0 to {self.depth - 1}",
        )


@dataclass(frozen=True)
class TextConfig(FromDict):
    """Sizes of the language model, under Hugging Face's names; the defaults are Qwen2.5-VL 7B's.

    Attributes:
        head_dim: width of an attention head; hidden_size / num_attention_heads where it is not given.
        mrope_section: channel pairs of a head that turn with time, with rows and with columns.
        mrope_interleaved: the axes take turns along the pairs of a head; else each axis has a run of pairs.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether each head of queries and keys is normalised before it is rotated.
    """

    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int = 4
    head_dim: int = 0
    vocab_size: int = 152064
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    mrope_section: tuple[int, ...] = (16, 24, 24)
    mrope_interleaved: bool = False
    qkv_bias: bool = True
    qk_norm: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        if not self.head_dim and self.num_attention_heads > 0 and self.hidden_size % self.num_attention_heads == 0:
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back; `head_dim` only where it does not follow from the others."""
        values = super().to_dict()
        if self.head_dim * self.num_attention_heads == self.hidden_size:
            del values["head_dim"]
        return values

    def check(self) -> None:
        """Check that sizes fit together.

        Raises:
            SvmError: names the settings that disagree.
        """
        if self.num_attention_heads > 0 and self.hidden_size > 0 and not self.head_dim:
            raise SvmError(
                f"config: hidden_size {self.hidden_size} is not a multiple of {self.num_attention_heads} heads."
            )
        demand_sizes(self, "text_config")
        for name in ("rms_norm_eps", "rope_theta"):
            value = getattr(self, name)
            demand(0 < value < math.inf, f"text_config.{name}", value, "a number above 0")
        if self.num_attention_heads % self.num_key_value_heads:
            raise SvmError(
                f"config: {self.num_attention_heads} heads do not share {self.num_key_value_heads} key-value heads "
                "evenly."
            )
        if len(self.mrope_section) != 3 or 2 * sum(self.mrope_section) != self.head_dim:
            raise SvmError(
                f"config: mrope_section {list(self.mrope_section)} must be three that add up to half a head "
                f"({self.head_dim // 2})."
            )


@dataclass(frozen=True)
class ModelConfig(FromDict):
    """A whole model: language model, optional vision tower, special token ids.

    Attributes:
        quantization: None where no layer is quantized.
        vocabulary: for a compact vocabulary, the file beside ``config.json`` with the tokenizer's id of each row.
    """

    text_config: TextConfig = field(default_factory=TextConfig)
    vision_config: VisionConfig | None = None
    model_type: Family = "qwen2_5_vl"
    image_token_id: int = 151655
    video_token_id: int = 151656
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    vocabulary: str | None = None
    quantization: QuantizationConfig | None = None

    def check(self) -> None:
        """Check that the vision tower's features fit the language model.

        Raises:
            SvmError: names the two settings that disagree.
        """
        t, v = self.text_config, self.vision_config
        if v is not None and v.out_hidden_size != t.hidden_size:
            raise SvmError(f"config: vision out_hidden_size {v.out_hidden_size} is not hidden_size {t.hidden_size}.")


@dataclass(frozen=True)
class PixelConfig(FromDict):
    """How a frame is resized, normalised and cut into patches.

    Limits are in pixels a frame. The defaults are those of the published program; they leave 360p at its size.
    """

    min_pixels: int = 100 * 28 * 28
    max_pixels: int = 384 * 28 * 28
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def check(self) -> None:
        """Check that sizes are 1 or more, and that each of three channels can be normalised.

        Raises:
            SvmError: names the setting.
        """
        demand_sizes(self, "pixels")
        mean, deviation = list(self.image_mean), list(self.image_std)
        demand(len(mean) == 3 and all(map(math.isfinite, mean)), "pixels.image_mean", mean, "three numbers")
        usable = len(deviation) == 3 and all(0 < value < math.inf for value in deviation)
        demand(usable, "pixels.image_std", deviation, "three numbers above 0")

    def check_fits(self, vision: VisionConfig) -> None:
        """Check that patches are of the size that the vision tower takes.

        Raises:
            SvmError: names the setting and what it must be.
        """
        wanted = {
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "merge_size": vision.spatial_merge_size,
        }
        for name, size in wanted.items():
            demand(getattr(self, name) == size, f"pixels.{name}", getattr(self, name), f"{size}, as in this checkpoint")


@dataclass(frozen=True)
class SamplingConfig(FromDict):
    """How a token is sampled from logits.

    Attributes:
        temperature: divides the logits; 0 is greedy.
        top_p: sample from the smallest set of tokens whose probabilities add up to this.
        repetition_penalty: Hugging Face's, over all kept tokens and those generated in this second.
        silence_threshold: the `` ...`` token is excluded unless its probability is above this; null never excludes it.
        silence_step: added to the threshold at each token of a second.
        max_new_tokens: the most tokens in a second.
        max_words: the most words in a second; null for no limit. A limit never cuts a word.
        max_sentences: the most sentences in a second; null for no limit.
        no_repeat_ngram_size: tokens of an n-gram that is not said again in the same second, nor within
            `repetition_window` seconds; 0 allows all. As Hugging Face's, over commentary only.
        repetition_window: seconds in which the same sentence is not said again; 0 allows it.
        seed: of the random draws of a stream.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.05
    silence_threshold: float | None = None
    silence_step: float = 0.0
    max_new_tokens: int = 20
    max_words: int | None = None
    max_sentences: int | None = None
    no_repeat_ngram_size: int = 0
    repetition_window: float = 0.0
    seed: int = 0

    def check(self) -> None:
        """Check that tokens can be sampled.

        Raises:
            SvmError: names the setting and what it can be.
        """
        demand(0 <= self.temperature < math.inf, "sampling.temperature", self.temperature, "0 or more, and finite")
        demand(0 < self.top_p <= 1, "sampling.top_p", self.top_p, "above 0 and at most 1")
        penalty = self.repetition_penalty
        demand(0 < penalty < math.inf, "sampling.repetition_penalty", penalty, "above 0, and finite")
        demand(self.max_new_tokens >= 1, "sampling.max_new_tokens", self.max_new_tokens, "1 or more")
        for name in ("max_words", "max_sentences"):
            value = getattr(self, name)
            demand(value is None or value >= 1, f"sampling.{name}", value, "1 or more, or null for no limit")
        size = self.no_repeat_ngram_size
        demand(size == 0 or size >= 2, "sampling.no_repeat_ngram_size", size, "2 or more, or 0 to allow all")
        demand(self.repetition_window >= 0, "sampling.repetition_window", self.repetition_window, "0 or more")
        demand(self.seed >= 0, "sampling.seed", self.seed, "0 or more")


@dataclass(frozen=True)
class StreamConfig(FromDict):
    """What a stream keeps, how it counts positions and how it samples.

    Attributes:
        mode: ``streaming``; or a baseline: ``recompute`` (no cache; all kept tokens are prefilled every second),
            ``window`` (windows without overlap; a full one is dropped whole), ``full`` (nothing is dropped).
        window: seconds of video that are kept.
        text_round: seconds of commentary that are kept.
        sink: tokens kept at the start of the previous text; null keeps all.
        slide: tokens kept at its end, including the end marker; null keeps all.
        pos_mode: ``shrink`` renumbers the kept tokens before each second, ``append`` continues from the last position.
        all_text: positions of video count up on one axis, like text (for weights trained as LiveCC).
        kv_bits: bits of a number in the cache, 8 or 4; null keeps the model's dtype.
        drop_still: leave out video tokens whose pixels differ by at most this from their last kept version (root mean
            square, in steps of 255); null shows all tokens.
        fps: frames sampled a second.
        style: how turns are written: as in the published inference program, as in its training data, or as LiveCC's
            program does, or as one chat turn that asks an instruct model what has just changed.
        system: the text of the system turn; empty for the style's own.
        query: the viewer's request, in the first second; in the instruct style in every second.
        previous: the text before the stream's start.
        scratchpad: a question to the model in each second in which the viewer asks nothing. The model writes an answer,
            which is not shown, before its commentary (arXiv 2112.00114). While it writes the answer, it cannot attend
            to earlier commentary and answers. With ``full`` answers are never dropped, with ``window`` when their
            window is.
        scratch_round: seconds in which commentary can attend to such an answer, including its own second; then the
            answer is dropped.
    """

    mode: Mode = "streaming"
    window: int = 16
    text_round: int = 16
    sink: int | None = 512
    slide: int | None = 512
    pos_mode: Positions = "shrink"
    all_text: bool = False
    kv_bits: Literal[4, 8] | None = None
    drop_still: float | None = None
    fps: float = 2.0
    style: Style = "inference"
    system: str = ""
    query: str = "Commentate on this match"
    previous: str = ""
    scratchpad: str = ""
    scratch_round: int = 1
    pixels: PixelConfig = field(default_factory=PixelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    @property
    def recomputes(self) -> bool:
        """Whether all kept tokens are prefilled every second; the one turn of the instruct style is written anew."""
        return self.mode == "recompute" or self.style == "instruct"

    def check(self) -> None:
        """Check that windows hold something.

        Raises:
            SvmError: names the setting and what it can be.
        """
        for name in ("window", "text_round", "scratch_round"):
            demand(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("sink", "slide"):
            demand((getattr(self, name) or 0) >= 0, name, getattr(self, name), "0 or more, or null to keep all")
        level = self.drop_still
        demand(level is None or 0 <= level <= 255, "drop_still", level, "0 to 255, or null to show all of the video")
        demand(0 < self.fps <= MOST_FPS, "fps", self.fps, f"above 0 and at most {MOST_FPS}")
        one_turn = self.style == "instruct"
        demand(not (one_turn and self.scratchpad), "scratchpad", self.scratchpad, "empty with style 'instruct'")
