"""Somebody who uses an app in a browser."""

from typing import Any

from attrs import field, frozen
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

_DO = "([step, args]) => steps[step](...args)"
_STATUS = "([step, args]) => steps[step](...args).then(() => 0, (error) => error.data?.statusCode ?? `${error}`)"


@frozen
class Person:
    """A browser of their own, with its own cookies, and the app open in it."""

    context: BrowserContext
    page: Page
    complaints: list[str] = field(factory=list)
    """What the browser refused or what the page did not catch."""

    @classmethod
    def opens(cls, browser: Browser, url: str) -> "Person":
        """A new person, who opens the app at an address."""
        context = browser.new_context()
        person = cls(context, context.new_page())
        # Functions, not methods: of a method, Playwright writes an attribute to the object.
        person.page.on("console", lambda message: person._console(message))
        person.page.on("pageerror", lambda error: person.complaints.append(str(error)))
        person.page.on("requestfailed", lambda request: person._failed(request))
        person.page.goto(url)
        person._ready()
        return person

    def do(self, step: str, *arguments: object) -> Any:
        """What a step of the page returns. An error of the page is an error here."""
        return self.page.evaluate(_DO, [step, list(arguments)])

    def status(self, step: str, *arguments: object) -> object:
        """The status that the homeserver refused a step with; 0 if it did not."""
        return self.page.evaluate(_STATUS, [step, list(arguments)])

    def reload(self) -> None:
        """Open the page again; the browser keeps its cookies, the page nothing."""
        self.page.reload()
        self._ready()

    def leave(self) -> None:
        """Close the browser."""
        self.context.close()

    def _ready(self) -> None:
        self.page.wait_for_function("'steps' in window")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource: the server responded" not in message.text:
            self.complaints.append(message.text)

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # by the page itself
            self.complaints.append(f"{request.method} {request.url}: {request.failure}")
