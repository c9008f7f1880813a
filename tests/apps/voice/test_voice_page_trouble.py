"""The voice page when things go wrong, in a real browser: it says what, keeps what it has, and comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from playwright.async_api import expect

from tests.apps.chat.conftest import PHONE
from tests.apps.voice.conftest import Visit
from tests.apps.voice.fake_realtime import FakeRealtime
from tests.apps.voice.test_voice_page import ANSWER, HEARD, refusing, told

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.slow, pytest.mark.timeout(60)]

SLOW = """
window.waiting = 0;
Object.defineProperty(WebSocket.prototype, "bufferedAmount", { get: () => window.waiting });
"""
REASONS = {
    "NotAllowedError": "does not let this page use the microphone",
    "NotFoundError": "There is no microphone",
    "NotReadableError": "another program may be using it",
}
UNSAFE = "Object.defineProperty(Navigator.prototype, 'mediaDevices', { get: () => undefined });"
LOUDEST = """() => {
    const meter = document.querySelector("[role=meter]");
    const look = () => { window.loudest = Math.max(window.loudest ?? 0, meter.ariaValueNow); };
    new MutationObserver(look).observe(meter, { attributes: true });
}"""
NAMELESS = """() => [...document.querySelectorAll("button, input:not([hidden]), select, summary")]
    .filter((node) => node.checkVisibility() && !node.labels?.length)
    .filter((node) => !(node.ariaLabel || node.innerText || "").trim())
    .map((node) => node.outerHTML)"""


async def test_no_microphone(visit: Visit, server: FakeRealtime) -> None:
    """Why there is no microphone is said; typing still works, and whoever allows it after all talks."""
    server.script.answer_s = 0.2
    talker = await visit("window.given = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);")
    again = talker.page.get_by_role("button", name="Try again")
    for name, words in REASONS.items():
        await talker.page.evaluate(f"() => {{ {refusing(name)} }}")
        await (again if await again.is_visible() else talker.mic).click()
        await expect(talker.banner).to_contain_text(words)
        await expect(talker.mic).to_have_text("Start")
    await talker.type("When are you open?")
    await expect(talker.answers).to_have_attribute("data-state", "done")
    await talker.page.evaluate("() => { navigator.mediaDevices.getUserMedia = window.given; }")
    await again.click()

    await expect(talker.mic).to_have_text("Mute")
    await expect(talker.banner).to_be_hidden()


async def test_a_browser_without_microphones(visit: Visit) -> None:
    """Where the browser gives pages no microphone at all, that is said."""
    talker = await visit(UNSAFE)
    await talker.start()

    await expect(talker.banner).to_contain_text("This browser gives pages no microphone")


async def test_a_server_without_recognition(visit: Visit, server: FakeRealtime) -> None:
    """A server that takes no sound is named once, and the microphone is off."""
    server.script.deaf = True
    talker = await visit()
    await talker.start()

    await expect(talker.banner).to_contain_text("runs without speech recognition")
    await expect(talker.mic).to_have_text("Start")
    await talker.type("When are you open?")
    await expect(talker.answers.locator(HEARD)).to_contain_text("We")


async def test_a_server_that_never_reacts(visit: Visit) -> None:
    """Who is loud for seconds without any sign of the server is told once that it may lack its speech stage."""
    talker = await visit()
    told = await talker.page.evaluate(
        """async () => {
            const { Uplink } = await import("/voice/uplink.js");
            const told = [];
            const uplink = new Uplink(null, null, { unheard: () => told.push(seconds) });
            const [loud, quiet] = [0.3, 0].map((value) => new Float32Array(480).fill(value));
            let seconds = 0;
            for (let n = 0; n < 400; n += 1) {
                uplink.expect(n % 2 ? loud : quiet);
                seconds += 0.02;
            }
            return told;
        }"""
    )
    assert told == [pytest.approx(6, abs=0.1)]


async def test_a_server_that_does_not_speak(visit: Visit, server: FakeRealtime) -> None:
    """Where answers come as text alone the page says so, and shows and announces them."""
    server.script.dumb = True
    server.script.answers = [ANSWER]
    talker = await visit()
    await talker.type("When are you open?")

    await expect(talker.banner).to_contain_text("does not speak")
    await expect(talker.answers.locator(HEARD)).to_have_text(ANSWER)
    await expect(talker.said).to_have_text(f"Answer: {ANSWER}")


async def test_no_connection_and_back(visit: Visit, server: FakeRealtime) -> None:
    """A cut connection comes back to its session in mid-answer: nothing is missing, and nothing came twice."""
    server.script.answer_s = 1.5
    talker = await visit()
    await talker.type("When are you open?")
    await expect(talker.answers.locator(HEARD)).to_contain_text("We are")
    await server.drop()

    await expect(talker.said).to_have_text("The connection is lost. Reconnecting.")
    await expect(talker.answers).to_have_attribute("data-state", "done")
    await expect(talker.answers.locator(HEARD)).to_have_text(server.script.answers[0])
    assert len(server.sessions) == 1
    assert {"conversation.item.create", "response.create"} <= {event["type"] for event in server.session.heard}


async def test_a_lost_session_is_told_again(visit: Visit, server: FakeRealtime) -> None:
    """A server that has forgotten the session gets a new one, and is told what was said and heard."""
    server.script.answer_s = 0.2
    server.script.answers = [ANSWER]
    talker = await visit()
    await talker.type("When are you open?")
    await expect(talker.answers).to_have_attribute("data-state", "done")
    server.session.id = "sess_forgotten"
    await server.drop()
    async with asyncio.timeout(15):
        while len(server.sessions) < 2:  # noqa: ASYNC110 - it keeps a list, no event
            await asyncio.sleep(0.02)
    await talker.type("And on Sunday?")

    items: list[Any] = [event["item"] for event in await told(server, "conversation.item.create", 3)]
    said = [(item["role"], item["content"][0]["text"]) for item in items]
    assert said == [("user", "When are you open?"), ("assistant", ANSWER), ("user", "And on Sunday?")]
    await expect(talker.answers).to_have_count(2)


async def test_a_key_is_wanted(visit: Visit, server: FakeRealtime) -> None:
    """Where the server wants a key, the page asks for one, says when it is wrong, and goes on with the right one."""
    server.key = "sk-right"
    talker = await visit()
    await talker.type("When are you open?")
    await expect(talker.banner).to_contain_text("wants an API key")
    key = talker.page.get_by_label("API key")
    await key.fill("sk-wrong")
    await key.press("Enter")
    await expect(talker.banner).to_contain_text("does not know this API key")
    await key.fill("sk-right")
    await key.press("Enter")

    await expect(talker.banner).to_be_hidden()
    await expect(talker.answers.locator(HEARD)).to_contain_text("We")


async def test_a_slow_network(visit: Visit, server: FakeRealtime) -> None:
    """Sound that waits for the network is told of, then left out rather than piled up, then sent again."""
    talker = await visit(SLOW)
    await talker.start()
    await expect(talker.state).to_have_text("Listening")
    await talker.page.evaluate("window.waiting = 150_000")
    await expect(talker.banner).to_contain_text("connection is slow: what you say arrives 2 s late")
    await talker.page.evaluate("window.waiting = 900_000")
    await expect(talker.banner).to_contain_text("some of what you say is left out")
    before = server.script.samples
    await talker.page.wait_for_timeout(300)
    assert server.script.samples - before < 2400
    await talker.page.evaluate("window.waiting = 0")

    await expect(talker.banner).to_be_hidden()
    async with asyncio.timeout(15):
        while server.script.samples < before + 24_000:  # noqa: ASYNC110 - it keeps a count, no event
            await asyncio.sleep(0.02)


async def test_muted(visit: Visit, server: FakeRealtime) -> None:
    """Muted, silence goes on to the server, so that a turn that has begun can end."""
    talker = await visit()
    await talker.start()
    await talker.page.get_by_role("button", name="Mute").click()
    await expect(talker.said).to_have_text("Muted")
    loud, samples = server.session.loud, server.script.samples
    async with asyncio.timeout(15):
        while server.script.samples < samples + 36_000:  # noqa: ASYNC110 - it keeps a count, no event
            await asyncio.sleep(0.02)

    assert server.session.loud - loud < 2400
    await talker.page.get_by_role("button", name="Turn the microphone off").click()
    await expect(talker.mic).to_have_text("Start")


@pytest.mark.parametrize(
    "screen", [{}, {"viewport": PHONE, "is_mobile": True, "has_touch": True}], ids=["desk", "phone"]
)
async def test_for_everybody(visit: Visit, server: FakeRealtime, screen: dict[str, Any]) -> None:
    """All that can be used has a name, nothing is wider than the screen, and nothing moves for who wants calm."""
    talker = await visit(reduced_motion="reduce", **screen)
    await talker.page.get_by_label("Settings").click()
    assert await talker.page.evaluate(NAMELESS) == []
    await talker.page.keyboard.press("Escape")
    await talker.page.evaluate(LOUDEST)
    await talker.start()
    await expect(talker.turns.first).to_be_visible()

    assert await talker.page.evaluate(NAMELESS) == []
    assert await talker.page.evaluate("document.getAnimations().length") == 0
    assert await talker.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await talker.until("window.loudest > 30")


async def test_one_can_go_there_and_back(visit: Visit, server: FakeRealtime) -> None:
    """The start page leads to the voice page, whose address works without its slash, and which has the same colours."""
    talker = await visit()
    await talker.page.get_by_role("button", name="Colours").click()
    await talker.page.get_by_role("link", name="Penstock, home").click()
    await talker.page.get_by_role("link", name="Talk to it").first.click()
    await expect(talker.mic).to_have_text("Start")
    await expect(talker.page.locator("html")).to_have_attribute("data-theme", "light")
    links = await talker.page.locator("a").evaluate_all("nodes => nodes.map((node) => node.getAttribute('href'))")
    served = {"/", "/voice/", "/widget-demo.html", "/metrics", "/livez", "#talk"}
    files = {link for link in links if link.startswith("/voice/") and link != "/voice/"}
    assert set(links) - files <= served
    for path in [*files, "/voice"]:
        assert (await talker.page.request.get(server.url + path)).ok, path
