"""The metrics port: `GET /metrics` for Prometheus, and nothing else. No password, no CORS."""

from typing import ClassVar

from attrs import define, field
from klein import Klein
from twisted.logger import Logger

from pubky_homeserver.metrics import ServerMetrics
from pubky_homeserver.web.answers import answer_with, refuse_method
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.routes import Route, route
from pubky_homeserver.web.texts import PLAIN


@define(eq=False)
class MetricsSite:
    """What the metrics port answers."""

    metrics: ServerMetrics
    log: ClassVar[Logger] = Logger()
    app: ClassVar[Klein] = Klein()
    _page: Route = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._page = route(self.app, {"GET": "scrape", "HEAD": "scrape"})

    async def answer(self, request: Request) -> None:
        """Answer one request."""
        if request.path != b"/metrics":
            request.setResponseCode(404)
            request.finish_with()
            return
        handler = self._page.methods.get(request.method)
        if handler is None:
            refuse_method(request, self._page.allow, _dress)
            return
        await answer_with(request, handler(request), _dress)

    @app.route("/metrics", methods=["GET", "HEAD"])
    async def scrape(self, request: Request) -> bytes:
        """All series. 200 as Prometheus' text format, 500 if they cannot be written."""
        request.setHeader(b"Content-Type", PLAIN)
        try:
            return self.metrics.render()
        except Exception as error:
            self.log.failure("The metrics could not be rendered")
            request.setResponseCode(500)
            return f"# Failed to render metrics: {error}".encode()


def _dress(request: Request, refused: bool) -> None:
    """Nothing is added here."""
