"""What the viewer asks of the model, and what they change of it."""

from dataclasses import replace
from typing import TYPE_CHECKING

from textual.validation import Integer, Number

from streaming_vlm_mlx.sessions.session_log import SessionLog
from streaming_vlm_mlx.taught_questions import is_taught
from tui.player.screens.parts import PlayerPart
from tui.player.spec import PlayerSpec, uses_query
from tui.player.widgets.prompt import MOST_EXAMPLES, Field, Prompt, list_examples

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig

# The limits of what the viewer may set.
HOTTEST, MOST_TOKENS = 5.0, 1000
# Characters of a question that a note on it repeats, where it says more than that.
MOST_REPEATED = 50


class Asking(PlayerPart):
    """Questions, the query and the sampling."""

    def __init__(self, spec: PlayerSpec, session: SessionLog) -> None:
        super().__init__(spec, session)
        self._config = spec.config

    def action_ask(self) -> None:
        """Ask the model about the next second."""
        if self._listens():
            field = Field("ask about the next second", "ask", examples=self.spec.questions)
            self.query_one(Prompt).ask("question", [field])

    def action_query(self) -> None:
        """Change the query, which holds for all seconds."""
        if self._listens() and self._config:
            if uses_query(self._config):
                self.query_one(Prompt).ask("query", [Field("query", "query", self._config.query)])
            else:
                self.note("this checkpoint's training template has no query: press / to ask about the next second.")

    def action_sampling(self) -> None:
        """Change how words are sampled."""
        if self._listens() and self._config:
            sampling = self._config.sampling
            warm = Number(0.0, HOTTEST, f"the temperature must be 0 to {HOTTEST:g}")
            few = Integer(1, MOST_TOKENS, f"tokens per second must be 1 to {MOST_TOKENS}")
            temperature = Field("temperature", "temp", f"{sampling.temperature:g}", "number", (warm,))
            tokens = Field("tokens per second", "tokens", str(sampling.max_new_tokens), "integer", (few,))
            self.query_one(Prompt).ask("sampling", [temperature, tokens])

    def _listens(self) -> bool:
        """Return whether there is a model that can be asked; tell the viewer if there is none."""
        if self._config is None:
            self.note("this commentary is recorded: play the clip with svm-tui play to ask or to change the model.")
        return self._config is not None

    def on_prompt_submitted(self, event: Prompt.Submitted) -> None:
        """Ask, or change the settings, as the viewer typed."""
        first, *others = event.values
        if event.purpose == "question" and first:
            self.controller.ask(first)
            self.note(self._describe(first), event.purpose)
        elif event.purpose == "query" and first and self._config:
            self.configure(replace(self._config, query=first))
            self.note(f"the query is: {first}", event.purpose)
        elif event.purpose == "sampling" and self._config:
            sampling = replace(self._config.sampling, temperature=float(first), max_new_tokens=int(others[0]))
            self.configure(replace(self._config, sampling=sampling))
            text = f"temperature {sampling.temperature:g}, {sampling.max_new_tokens} tokens per second"
            self.note(text, event.purpose)

    def on_prompt_refused(self, event: Prompt.Refused) -> None:
        """Say what may be typed."""
        self.app.bell()
        self.note(f"{event.reason}.", event.purpose)

    def _describe(self, question: str) -> str:
        """Return that `question` was asked and, if the model was not taught it, what may be asked instead."""
        taught = self.spec.questions
        if is_taught(question, taught):
            return f"asked: {question}"
        short = question if len(question) <= MOST_REPEATED else f"{question[: MOST_REPEATED - 1]}…"
        return (
            f"asked: {short}\nthis checkpoint was not taught that and cannot tell, whatever it says. "
            f"Ask {list_examples(taught, MOST_EXAMPLES)}"
        )

    @property
    def config(self) -> "StreamConfig | None":
        """The settings that the viewer changes; None for a recording."""
        return self._config

    def configure(self, config: "StreamConfig") -> None:
        """Change the settings from the next second on."""
        self._config = config
        self.controller.configure(config)
