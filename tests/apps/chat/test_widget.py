"""The chat widget in a real browser against a fake gateway."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import pytest
from playwright.async_api import Locator, Page, expect

from tests.apps.chat.conftest import PHONE, PLAIN, Visit, Visitor
from tests.apps.chat.fake_gateway import HOURS, RATE, RETURNS, FakeGateway, Reply

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.slow]

ENDLESS = Reply(RETURNS * 20, pause=0.02)
FAILED = Reply(error={"type": "server_error", "code": "engine_failed", "message": "no"})


def embed(attributes: str = "", *, body: str = "", lines: int = 1) -> str:
    """Write a third party's page with the widget on it."""
    script = f'<script src="/widget.js" {attributes}></script>\n' * lines
    return f"<!doctype html><html lang=en><head><title>A page</title>{script}</head><body>{body}</body></html>"


async def grown(text: Locator, length: int) -> str:
    """Wait until `text` is at least `length` long."""
    await expect(text).to_have_text(re.compile(rf"[\s\S]{{{length},}}"), use_inner_text=True)
    return await text.inner_text()


async def open_popup(visitor: Visitor) -> None:
    """Open the floating chat by its button."""
    await visitor.launcher.click()
    await expect(visitor.input).to_be_focused()


# -- talking


async def test_answer_grows_while_it_is_written(gateway: FakeGateway, visit: Visit) -> None:
    """An answer is shown as it comes, and whole in the end."""
    reply = Reply(RETURNS, holds={3: asyncio.Event(), 8: asyncio.Event()})
    gateway.plan.append(reply)
    visitor = await visit()
    await visitor.ask("How do I return boots?")

    for number, hold in reply.holds.items():
        await expect(visitor.answers).to_have_text("".join(reply.chunks[:number]))
        hold.set()

    await expect(visitor.answers).to_have_text(RETURNS)
    await expect(visitor.stop).to_be_hidden()


async def test_dots_stand_for_the_first_token(gateway: FakeGateway, visit: Visit) -> None:
    """Until the first token comes the visitor sees that an answer is being written."""
    go = asyncio.Event()
    gateway.plan.append(Reply(holds={0: go}))
    visitor = await visit()
    await visitor.ask("When are you open?")

    await expect(visitor.page.get_by_role("img", name="Writing an answer")).to_be_visible()
    go.set()
    await expect(visitor.answers).to_have_text(HOURS)


async def test_text_modality_is_asked_for(gateway: FakeGateway, visit: Visit) -> None:
    """A session is told that only text is wanted, before anything else."""
    visitor = await visit()
    await visitor.ask("hello")
    await expect(visitor.answers).to_have_text(HOURS)

    first = gateway.sessions[0].received[0]

    assert (first["type"], first["session"]["output_modalities"]) == ("session.update", ["text"])


async def test_stop_ends_the_answer(gateway: FakeGateway, visit: Visit) -> None:
    """Stop cancels the response by its id; what was written stays, and the next question is served."""
    gateway.plan.append(ENDLESS)
    visitor = await visit()
    await visitor.ask("Tell me everything")
    await grown(visitor.answers, 40)

    await visitor.stop.click()

    await expect(visitor.page.get_by_text("Stopped.")).to_be_visible()
    said = await visitor.answers.inner_text()
    cancel = gateway.sessions[0].of("response.cancel")
    assert len(cancel) == 1
    assert cancel[0]["response_id"].startswith("resp_")
    await visitor.ask("When are you open?")
    await expect(visitor.answers.last).to_have_text(HOURS)
    await expect(visitor.answers.first).to_have_text(said)


async def test_stop_before_the_first_token(gateway: FakeGateway, visit: Visit) -> None:
    """An answer can be stopped before it says anything."""
    gateway.plan.append(Reply(holds={0: asyncio.Event()}))
    visitor = await visit()
    await visitor.ask("Wait")
    await visitor.stop.click()

    await expect(visitor.page.get_by_text("Stopped.")).to_be_visible()
    await expect(visitor.answers).to_be_hidden()


async def test_question_during_an_answer_waits_for_it(gateway: FakeGateway, visit: Visit) -> None:
    """What is sent while an answer is written is asked after it, and answered below it."""
    go = asyncio.Event()
    gateway.plan.extend([Reply(RETURNS, holds={4: go}), Reply(HOURS)])
    visitor = await visit()
    await visitor.ask("returns?")
    await visitor.ask("hours?")

    await expect(visitor.page.get_by_text("Waiting to be sent")).to_be_visible()
    go.set()

    await expect(visitor.answers.nth(1)).to_have_text(HOURS)
    bubbles = await visitor.page.locator(".message:not(.greeting) .bubble").all_inner_texts()
    assert bubbles == ["returns?", RETURNS, "hours?", HOURS]


async def test_suggestion_asks(visit: Visit) -> None:
    """A tap on a suggestion asks it, and the suggestions go."""
    visitor = await visit("/")
    await visitor.page.get_by_role("button", name="When are you open?").click()

    await expect(visitor.answers).to_have_text(HOURS)
    await expect(visitor.page.get_by_role("group", name="Suggested questions")).to_be_hidden()


async def test_strange_events_are_passed_over(gateway: FakeGateway, visit: Visit) -> None:
    """Unknown events, foreign responses and frames that are no JSON harm nothing."""
    visitor = await visit()
    await visitor.ask("one")
    await expect(visitor.answers).to_have_text(HOURS)
    connection = gateway.sessions[0].connection
    for frame in (
        "no json",
        "[]",
        '{"type": "gadget.added"}',
        '{"type": "constructor"}',
        '{"type": "response.output_text.delta", "response_id": "resp_other", "delta": "STRAY"}',
    ):
        await connection.send(frame)

    await visitor.ask("two")

    await expect(visitor.answers.nth(1)).to_have_text(HOURS)
    await expect(visitor.page.get_by_text("STRAY")).to_have_count(0)


async def test_new_conversation_can_be_undone(gateway: FakeGateway, visit: Visit) -> None:
    """A new conversation is a new session with nothing in it; undo brings the old one back, on the server too."""
    visitor = await visit()
    await visitor.ask("one")
    await expect(visitor.answers).to_have_text(HOURS)
    await visitor.page.get_by_role("button", name="New conversation").click()
    await expect(visitor.questions).to_have_count(0)

    await visitor.page.get_by_role("button", name="Undo").click()

    await expect(visitor.answers).to_have_text(HOURS)
    await visitor.ask("two")
    await expect(visitor.answers).to_have_count(2)
    assert gateway.sessions[-1].items == [("user", "one"), ("assistant", HOURS), ("user", "two")]


async def test_copy_puts_the_answer_on_the_clipboard(gateway: FakeGateway, visit: Visit) -> None:
    """The copy button under an answer copies its text."""
    visitor = await visit(permissions=["clipboard-read", "clipboard-write"])
    await visitor.ask("one")
    await visitor.page.get_by_role("button", name="Copy this answer").click()

    await expect(visitor.page.get_by_role("button", name="Copied")).to_be_visible()
    assert await visitor.page.evaluate("navigator.clipboard.readText()") == HOURS


# -- what goes wrong


async def test_failed_answer_can_be_retried(gateway: FakeGateway, visit: Visit) -> None:
    """Retry after a failure asks for the answer again, without telling the question twice."""
    gateway.plan.extend([FAILED, Reply(HOURS)])
    visitor = await visit()
    await visitor.ask("When?")
    await expect(visitor.page.get_by_text("Something went wrong on our side.")).to_be_visible()

    await visitor.retry.click()

    await expect(visitor.answers).to_have_text(HOURS)
    await expect(visitor.page.get_by_text("Something went wrong")).to_have_count(0)
    assert gateway.sessions[0].items == [("user", "When?")]
    assert len(gateway.sessions[0].of("response.create")) == 2


async def test_rate_limit_is_waited_out(gateway: FakeGateway, visit: Visit) -> None:
    """A rate limit is told in words, with a Retry that opens when the server said."""
    gateway.plan.extend([Reply(refusal=RATE), Reply(HOURS)])
    visitor = await visit()
    await visitor.ask("When?")

    await expect(visitor.page.get_by_text("That was a little too fast.")).to_be_visible()
    await expect(visitor.page.get_by_role("button", name=re.compile("Try again in [1-4] s"))).to_be_disabled()
    await visitor.retry.click()

    await expect(visitor.answers).to_have_text(HOURS)


async def test_incomplete_answer_says_why(gateway: FakeGateway, visit: Visit) -> None:
    """An answer cut at its length is kept and marked."""
    gateway.plan.append(Reply(HOURS, incomplete="max_output_tokens"))
    visitor = await visit()
    await visitor.ask("When?")

    await expect(visitor.page.get_by_text("cut off at its length limit")).to_be_visible()
    await expect(visitor.answers).to_have_text(HOURS)


async def test_cut_in_mid_answer(gateway: FakeGateway, visit: Visit) -> None:
    """A broken answer is marked, the chat reconnects by itself, and Retry replaces the fragment."""
    gateway.plan.extend([Reply(HOURS), Reply(RETURNS, cut_after=6), Reply(RETURNS)])
    visitor = await visit()
    await visitor.ask("one")
    await expect(visitor.answers).to_have_text(HOURS)
    await visitor.ask("two")
    await expect(visitor.page.get_by_text("The answer was interrupted.")).to_be_visible()
    await visitor.sees_state("Online")

    await visitor.retry.click()

    await expect(visitor.answers).to_have_text([HOURS, RETURNS])
    assert gateway.sessions[1].items == [("user", "one"), ("assistant", HOURS), ("user", "two")]


async def test_cut_before_the_first_token(gateway: FakeGateway, visit: Visit) -> None:
    """A question that nobody began to answer is asked again by itself, and answered once."""
    gateway.plan.extend([Reply(cut_after=0), Reply(HOURS)])
    visitor = await visit()
    await visitor.ask("When?")

    await expect(visitor.answers).to_have_text([HOURS])
    await expect(visitor.questions).to_have_text(["When?"])
    assert len(gateway.sessions) == 2


async def test_messages_wait_for_the_connection(gateway: FakeGateway, visit: Visit) -> None:
    """What is typed without a connection is sent in order when there is one again."""
    gateway.close_with = (1013, "try again in 20 s")
    visitor = await visit()
    await expect(visitor.page.get_by_text("The server is busy.")).to_be_visible()
    await visitor.ask("one")
    await visitor.ask("two")
    await expect(visitor.page.get_by_text("Waiting to be sent")).to_have_count(2)
    gateway.close_with = None

    await visitor.page.get_by_role("button", name="Reconnect now").click()

    await expect(visitor.answers).to_have_text([HOURS, HOURS])
    bubbles = await visitor.page.locator(".message:not(.greeting) .bubble").all_inner_texts()
    assert bubbles == ["one", HOURS, "two", HOURS]


async def test_waiting_messages_are_bounded(gateway: FakeGateway, visit: Visit) -> None:
    """A sixth message without a connection stays in the field, and the visitor is told."""
    gateway.close_with = (1013, "try again in 20 s")
    visitor = await visit()
    for number in range(6):
        await visitor.ask(f"message {number}")

    await expect(visitor.questions).to_have_count(5)
    await expect(visitor.input).to_have_value("message 5")
    await expect(visitor.page.get_by_text("wait until your earlier messages")).to_be_visible()


async def test_offline_is_told(visit: Visit, gateway: FakeGateway) -> None:
    """Without a network the chat says so, and comes back with the network at once."""
    visitor = await visit()
    await visitor.sees_state("Online")
    gateway.close_with = (1013, "try again in 25 s")
    await visitor.page.context.set_offline(True)
    gateway.drop()
    await expect(visitor.page.get_by_text("You seem to be offline.")).to_be_visible()

    gateway.close_with = None
    await visitor.page.context.set_offline(False)

    await visitor.sees_state("Online")


async def test_restart_of_the_service_goes_unnoticed(gateway: FakeGateway, visit: Visit) -> None:
    """After a close with 1012 the chat is back within a second or two."""
    visitor = await visit()
    await visitor.sees_state("Online")
    await gateway.close(1012, "restart")
    await visitor.ask("When?")

    await expect(visitor.answers).to_have_text(HOURS)


async def test_refusal_is_final(gateway: FakeGateway, visit: Visit) -> None:
    """After a close with 1008 there is no further attempt, and the reason is shown."""
    gateway.close_with = (1008, "This origin is not allowed")
    visitor = await visit()

    await expect(visitor.page.get_by_text("This origin is not allowed")).to_be_visible()
    await visitor.sees_state("Not available")
    gateway.close_with = None
    await asyncio.sleep(1.5)
    assert gateway.sessions == []


async def heard(gateway: FakeGateway, kind: str, count: int) -> None:
    """Wait until the first session has heard so many events of a type."""
    async with asyncio.timeout(8):
        while len(gateway.sessions[0].of(kind)) < count:  # noqa: ASYNC110 - a list, no event
            await asyncio.sleep(0.02)


async def test_busy_server_is_waited_for(gateway: FakeGateway, visit: Visit) -> None:
    """A server that is silent for long but still there is not asked anew."""
    go = asyncio.Event()
    gateway.plan.append(Reply(holds={0: go}))
    visitor = await visit()
    await visitor.page.clock.install()
    await visitor.ask("When?")
    await expect(visitor.stop).to_be_visible()
    for trial in range(3):
        await asyncio.sleep(0.5)  # the page must have heard all before its clock goes on, and nothing shows when
        await visitor.page.clock.fast_forward(21_000)
        await heard(gateway, "session.update", trial + 2)
    go.set()

    await expect(visitor.answers).to_have_text(HOURS)
    assert len(gateway.sessions) == 1
    assert len(gateway.sessions[0].of("response.create")) == 1


async def test_connection_that_died_unseen_is_replaced(gateway: FakeGateway, visit: Visit) -> None:
    """When nothing comes back at all, the chat takes a new connection and asks there."""
    visitor = await visit()
    await visitor.sees_state("Online")
    await visitor.page.clock.install()
    gateway.deaf = True
    await visitor.ask("When?")
    await expect(visitor.stop).to_be_visible()
    await asyncio.sleep(0.5)  # the page must have sent all before its clock goes on, and nothing shows when
    await visitor.page.clock.fast_forward(21_000)
    await heard(gateway, "session.update", 2)
    gateway.deaf = False
    await visitor.page.clock.fast_forward(11_000)

    await expect(visitor.answers).to_have_text(HOURS)
    assert len(gateway.sessions) == 2


# -- kept over a reload


async def test_reload_keeps_the_conversation(gateway: FakeGateway, visit: Visit) -> None:
    """After a reload the conversation stands as before, and the new session is told it, under the same ids."""
    visitor = await visit()
    await visitor.ask("My name is Ada")
    await expect(visitor.answers).to_have_text("I am Fern, the assistant of Fernhill Outdoor.")
    await visitor.page.reload()
    await expect(visitor.answers).to_have_text("I am Fern, the assistant of Fernhill Outdoor.")
    await expect(visitor.questions).to_have_text("My name is Ada")

    await visitor.ask("When?")

    await expect(visitor.answers.nth(1)).to_have_text(HOURS)
    before, after = gateway.sessions
    assert after.items[:2] == [
        ("user", "My name is Ada"),
        ("assistant", "I am Fern, the assistant of Fernhill Outdoor."),
    ]
    told = [event["item"] for event in after.of("conversation.item.create")]
    assert told[0]["id"] == before.of("conversation.item.create")[0]["item"]["id"]
    assert [item["content"][0]["type"] for item in told] == ["input_text", "output_text", "input_text"]


async def test_reload_in_mid_answer(gateway: FakeGateway, visit: Visit) -> None:
    """An answer that a reload broke is kept as far as it came, marked, and can be retried."""
    gateway.plan.extend([ENDLESS, Reply(HOURS)])
    visitor = await visit()
    await visitor.ask("Tell me")
    await grown(visitor.answers, 60)
    await visitor.page.reload()

    await expect(visitor.page.get_by_text("The answer was interrupted.")).to_be_visible()
    assert len(await visitor.answers.inner_text()) >= 60
    await visitor.retry.click()

    await expect(visitor.answers).to_have_text([HOURS])


async def test_reload_before_the_first_token(gateway: FakeGateway, visit: Visit) -> None:
    """A question whose answer had not begun can be retried after a reload."""
    gateway.plan.extend([Reply(holds={0: asyncio.Event()}), Reply(HOURS)])
    visitor = await visit()
    await visitor.ask("Tell me")
    await expect(visitor.stop).to_be_visible()
    await visitor.page.reload()

    await visitor.retry.click()

    await expect(visitor.answers).to_have_text([HOURS])
    await expect(visitor.questions).to_have_text(["Tell me"])


async def test_second_tab_follows(gateway: FakeGateway, visit: Visit) -> None:
    """What is said in one tab shows in another, whose own session is told it before the next question."""
    visitor = await visit()
    other = Visitor(await visitor.page.context.new_page())
    await other.page.goto(visitor.page.url)
    await other.sees_state("Online")
    await visitor.ask("one")
    await expect(other.answers).to_have_text([HOURS])

    await other.ask("two")

    await expect(other.answers).to_have_text([HOURS, HOURS])
    assert gateway.sessions[1].items == [("user", "one"), ("assistant", HOURS), ("user", "two")]


@pytest.mark.parametrize("trouble", ["get() { throw new DOMException('no', 'SecurityError') }", "value: full"])
async def test_without_storage(gateway: FakeGateway, visit: Visit, trouble: str) -> None:
    """A browser that keeps nothing, or no more, has a chat all the same."""
    visitor = await visit("/favicon.svg")
    full = "const full = { getItem: () => null, removeItem() {}, setItem(k, v) { if (v) throw new Error('full') } };"
    script = full + "".join(
        f"Object.defineProperty(window, '{name}', {{ {trouble} }});" for name in ("localStorage", "sessionStorage")
    )
    await visitor.page.add_init_script(script)
    await visitor.page.goto(gateway.url + PLAIN)
    await visitor.ask("When?")

    await expect(visitor.answers).to_have_text(HOURS)


# -- hands, eyes and ears


async def test_keyboard_alone(gateway: FakeGateway, visit: Visit) -> None:
    """Everything can be done by keys: open, write two lines, send, close; the focus comes back to the launcher."""
    gateway.pages["/page"] = embed('data-title="Ask us"')
    visitor = await visit("/page")
    keys = visitor.page.keyboard
    await expect(visitor.launcher).to_be_visible()
    await keys.press("Tab")
    await expect(visitor.launcher).to_be_focused()
    await keys.press("Enter")
    await expect(visitor.input).to_be_focused()
    await keys.type("one")
    await keys.press("Shift+Enter")
    await keys.type("two")
    await keys.press("Enter")

    await expect(visitor.questions).to_have_text("one\ntwo", use_inner_text=True)
    await expect(visitor.answers).to_have_text(HOURS)
    await expect(visitor.input).to_be_focused()
    await keys.press("Escape")
    await expect(visitor.panel).to_be_hidden()
    await expect(visitor.launcher).to_be_focused()


async def test_enter_in_a_composition_sends_nothing(visit: Visit, gateway: FakeGateway) -> None:
    """Enter that accepts a word of an input method is not a wish to send."""
    visitor = await visit()
    await visitor.input.fill("にほん")
    await visitor.input.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    await visitor.input.dispatch_event("keydown", {"key": "Enter", "keyCode": 229})

    await expect(visitor.input).to_have_value("にほん")
    await expect(visitor.questions).to_have_count(0)


async def test_screen_reader_hears_whole_answers(gateway: FakeGateway, visit: Visit) -> None:
    """An answer comes into the live log when it is finished, not before, and all controls have names."""
    gateway.pages["/page"] = embed('data-title="Ask us"')
    go = asyncio.Event()
    gateway.plan.append(Reply(RETURNS, holds={8: go}))
    visitor = await visit("/page")
    await open_popup(visitor)
    log = visitor.page.get_by_role("log", name="Conversation")
    await visitor.ask("returns?")
    await grown(visitor.answers, 20)
    assert "Returning" not in await log.inner_text()
    go.set()

    await expect(log).to_contain_text("hand it in.")

    await expect(log).to_have_attribute("aria-live", "polite")
    await expect(visitor.page.get_by_role("dialog", name="Ask us")).to_be_visible()
    for button in await visitor.page.get_by_role("button").all():
        assert await button.get_attribute("aria-label") or (await button.inner_text()).strip()


async def test_unread_answers_are_counted(gateway: FakeGateway, visit: Visit) -> None:
    """An answer that is finished while the chat is closed shows at the launcher."""
    gateway.pages["/page"] = embed()
    go = asyncio.Event()
    gateway.plan.append(Reply(holds={1: go}))
    visitor = await visit("/page")
    await open_popup(visitor)
    await visitor.ask("When?")
    await visitor.input.press("Escape")
    await expect(visitor.panel).to_be_hidden()
    go.set()

    await expect(visitor.launcher).to_have_accessible_name("Open chat, 1 new")
    await visitor.launcher.click()
    await expect(visitor.launcher).to_have_accessible_name("Close chat")


async def test_reader_is_not_pulled_down(gateway: FakeGateway, visit: Visit) -> None:
    """Who has scrolled up stays there while an answer grows, and can jump to the latest."""
    gateway.plan.extend([Reply(RETURNS * 8, pause=0), replace(ENDLESS, pause=0.01)])
    visitor = await visit()
    await visitor.ask("one")
    await expect(visitor.stop).to_be_hidden()
    await visitor.ask("two")
    await grown(visitor.answers.last, 100)
    scroller = visitor.page.locator(".scroller")
    await scroller.evaluate("node => node.scrollTop = 0")
    jump = visitor.page.get_by_role("button", name="Jump to latest")
    await expect(jump).to_be_visible()
    await grown(visitor.answers.last, 600)
    assert await scroller.evaluate("node => node.scrollTop") == 0

    await jump.click()

    await expect(jump).to_be_hidden()
    await expect(visitor.input).to_be_focused()


@pytest.mark.parametrize("path", ["/", "/widget-demo.html"])
async def test_phone(gateway: FakeGateway, visit: Visit, path: str) -> None:
    """On a phone nothing is wider than the screen, nothing zooms on focus, and every target fits a finger."""
    visitor = await visit(path, viewport=PHONE, is_mobile=True, has_touch=True)
    if path != "/":
        await open_popup(visitor)
        assert await visitor.panel.bounding_box() == {"x": 0, "y": 0, **PHONE}
    await visitor.ask("When? https://fernhill.example/" + "long" * 40)
    await expect(visitor.answers).to_have_text(HOURS)

    assert await visitor.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    size = await visitor.input.evaluate("node => getComputedStyle(node).fontSize")
    assert float(size.removesuffix("px")) >= 16
    for button in await visitor.page.locator("penstock-chat button:visible").all():
        box = await button.bounding_box()
        assert box
        assert min(box["width"], box["height"]) >= 44, await button.get_attribute("class")


async def test_greeting_is_read_from_its_beginning(visit: Visit) -> None:
    """On a screen too small for greeting and suggestions, the greeting is what stands there first."""
    visitor = await visit("/", viewport={"width": 320, "height": 568}, is_mobile=True)
    await visitor.sees_state("Online")

    assert await visitor.page.locator(".scroller").evaluate("node => node.scrollTop") == 0
    assert await visitor.page.evaluate("document.documentElement.scrollWidth") == 320


async def test_sheet_keeps_the_focus(gateway: FakeGateway, visit: Visit) -> None:
    """As a sheet over a phone's screen the chat lets no Tab out; as a popup on a desktop it does."""
    gateway.pages["/page"] = embed(body='<a href="#x" id="outside">a link</a>')
    for viewport, inside in ((PHONE, True), ({"width": 1000, "height": 700}, False)):
        visitor = await visit("/page", viewport=viewport)
        await visitor.launcher.click()
        reached = set()
        for _ in range(9):
            await visitor.page.keyboard.press("Tab")
            reached.add(await visitor.page.evaluate("document.activeElement.tagName"))
        assert (reached == {"PENSTOCK-CHAT"}) is inside


# -- looks


def channels(color: str) -> list[float]:
    """Red, green and blue of an rgb() colour, 0 to 1."""
    return [float(part) / 255 for part in re.findall(r"[\d.]+", color)[:3]]


def contrast(one: str, two: str) -> float:
    """The WCAG 2 contrast of two rgb() colours."""
    lights = []
    for color in (one, two):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels(color)]
        lights.append(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


async def style(node: Locator, name: str) -> str:
    """What the browser makes of a style."""
    return str(await node.evaluate("(node, name) => getComputedStyle(node)[name]", name))


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_any_colour_is_readable(gateway: FakeGateway, visit: Visit, scheme: str) -> None:
    """Whatever the colour and the theme, text, links and notes have the contrast that AA asks for."""
    gateway.pages["/page"] = embed("data-open")
    gateway.plan.extend([Reply("See https://fernhill.example/ now"), FAILED])
    visitor = await visit("/page", color_scheme=scheme)
    await visitor.ask("one")
    await expect(visitor.answers).to_contain_text("now")
    await visitor.ask("two")
    await expect(visitor.retry).to_be_visible()
    surface = await style(visitor.panel, "backgroundColor")
    pairs = [
        (visitor.questions.first, visitor.questions.first),
        (visitor.answers.first, visitor.answers.first),
        (visitor.answers.first.locator("a"), visitor.answers.first),
        (visitor.page.locator(".note"), None),
        (visitor.retry, None),
        (visitor.page.locator(".fine"), None),
    ]
    for color in ("#17594f", "white", "black", "gold", "hsl(200 90% 50%)", "#777"):
        await visitor.page.locator("penstock-chat").evaluate("(node, color) => (node.dataset.color = color)", color)
        for text, behind in pairs:
            ground = await style(behind, "backgroundColor") if behind else surface
            assert contrast(await style(text, "color"), ground) >= 4.5, (color, await text.inner_text())


async def test_theme_follows_or_is_forced(gateway: FakeGateway, visit: Visit) -> None:
    """The chat is as dark as the system, unless the page says otherwise."""
    gateway.pages["/auto"] = embed("data-open")
    gateway.pages["/light"] = embed("data-open data-theme=light")
    grounds = []
    for path, scheme in (("/auto", "light"), ("/auto", "dark"), ("/light", "dark")):
        visitor = await visit(path, color_scheme=scheme)
        grounds.append(await style(visitor.panel, "backgroundColor"))

    light, dark, forced = grounds
    assert light == forced == "rgb(255, 255, 255)"
    assert contrast(dark, "rgb(255, 255, 255)") > 14


# -- on somebody else's page


def third_party(gateway: FakeGateway, policy: str) -> str:
    """Put the widget on a page of another origin, which has a content security policy, and give its address."""
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    script = f'<script src="{gateway.url}/widget.js" data-open></script>'
    gateway.pages["/third"] = f"<!doctype html><title>A page</title>{meta}{script}"
    return f"{gateway.elsewhere}/third"


async def test_strict_policy_elsewhere(gateway: FakeGateway, visit: Visit) -> None:
    """A page of another origin that trusts nothing but the widget's script and its socket can have it, in colour."""
    socket = gateway.url.replace("http", "ws")
    policy = f"default-src 'none'; script-src {gateway.url}; connect-src {socket}; require-trusted-types-for 'script'"
    visitor = await visit(third_party(gateway, policy))
    await visitor.ask("When?")

    await expect(visitor.answers).to_have_text(HOURS)
    assert await style(visitor.launcher, "backgroundColor") == "rgb(15, 95, 88)"


async def test_policy_that_forbids_the_socket(gateway: FakeGateway, visit: Visit) -> None:
    """Where the page's policy forbids the connection, the chat says so and does not go on trying."""
    visitor = await visit(third_party(gateway, f"default-src 'none'; script-src {gateway.url}"))

    await expect(visitor.page.get_by_text("The security policy of this page")).to_be_visible()
    await visitor.sees_state("Not available")
    visitor.console.clear()


async def test_moved_widget_goes_on(gateway: FakeGateway, visit: Visit) -> None:
    """A page may take the element out and put it elsewhere; the conversation stays."""
    gateway.pages["/page"] = embed("data-open", body="<main></main>")
    visitor = await visit("/page")
    await visitor.ask("one")
    await expect(visitor.answers).to_have_text(HOURS)
    await visitor.page.evaluate("document.querySelector('main').append(document.querySelector('penstock-chat'))")

    await expect(visitor.panel).to_have_count(1)
    await expect(visitor.answers).to_have_text(HOURS)
    await visitor.ask("two")
    await expect(visitor.answers).to_have_count(2)


async def test_attributes(gateway: FakeGateway, visit: Visit) -> None:
    """Title, greeting, colour, position, model and key are set by attributes."""
    gateway.pages["/page"] = embed(
        'data-title="Ask Ada" data-greeting="Good day" data-color="rebeccapurple" data-position=left '
        'data-model="small one" data-key="sk-123" data-open'
    )
    visitor = await visit("/page")

    await expect(visitor.page.get_by_role("dialog", name="Ask Ada")).to_contain_text("Good day")
    await visitor.sees_state("Online")
    box = await visitor.launcher.bounding_box()
    assert box
    assert box["x"] < 100
    assert await style(visitor.launcher, "backgroundColor") == "rgb(102, 51, 153)"
    request = gateway.sessions[0].connection.request
    assert request
    assert request.path == "/v1/realtime?model=small%20one"
    assert request.headers["Sec-WebSocket-Protocol"] == "realtime, openai-insecure-api-key.sk-123"


async def test_wrong_attributes_are_named(gateway: FakeGateway, visit: Visit) -> None:
    """What an attribute gets wrong is told in the console by its name, and the chat works without it."""
    gateway.pages["/page"] = embed(
        'data-color="blurple" data-position=top data-theme=pink data-server="nowhere" data-key="a b" '
        'data-target="#none" data-open'
    )
    visitor = await visit("/page")
    await visitor.ask("When?")

    await expect(visitor.answers).to_have_text(HOURS)
    said = "\n".join(visitor.console)
    for name in ("color", "position", "theme", "server", "key", "target"):
        assert f"data-{name}=" in said
    assert "blurple" in said
    assert "a b" not in said


async def test_second_script_is_ignored(gateway: FakeGateway, visit: Visit) -> None:
    """Loaded twice, the widget is there once, and says so."""
    gateway.pages["/page"] = embed(lines=2)
    visitor = await visit("/page")

    await expect(visitor.launcher).to_have_count(1)
    assert any("second script is ignored" in line for line in visitor.console)


async def test_markup_is_shown_not_obeyed(gateway: FakeGateway, visit: Visit) -> None:
    """Markup in a question or an answer is text; only web addresses become links, and safe ones."""
    evil = '<img src=x onerror="window.hit = 1"><b>bold</b> javascript:alert(1) https://a.example/?q=<i>.'
    gateway.plan.append(Reply(evil))
    visitor = await visit()
    await visitor.ask(evil)

    await expect(visitor.answers).to_have_text(evil)
    await visitor.page.reload()
    await expect(visitor.answers).to_have_text(evil)
    await expect(visitor.questions).to_have_text(evil)
    assert await visitor.page.evaluate("window.hit") is None
    assert await visitor.answers.locator("*").evaluate_all("nodes => nodes.map((node) => node.tagName)") == ["A"]
    link = visitor.answers.locator("a")
    assert await link.get_attribute("href") == "https://a.example/?q="
    assert "noopener" in (await link.get_attribute("rel") or "")


async def test_page_and_chat_keep_their_styles_apart(gateway: FakeGateway, visit: Visit) -> None:
    """A page that styles everything, loudly, changes nothing in the chat."""
    loud = (
        "<style>* { color: red !important; font: 40px fantasy !important; letter-spacing: 9px; }"
        "body > * { display: none !important; opacity: 0; transform: rotate(9deg); }</style>"
    )
    gateway.pages["/plain"] = embed("data-open")
    gateway.pages["/loud"] = embed("data-open", body=loud)
    seen = []
    for path in ("/plain", "/loud"):
        visitor = await visit(path)
        await visitor.sees_state("Online")
        await visitor.panel.evaluate("panel => Promise.all(panel.getAnimations().map(one => one.finished))")
        title = visitor.page.locator(".title")
        names = ("color", "fontSize", "fontFamily", "letterSpacing", "opacity")
        seen.append(([await style(title, name) for name in names], await visitor.panel.bounding_box()))

    assert seen[0] == seen[1]


@pytest.mark.parametrize("path", ["/", "/widget-demo.html"])
async def test_demo_pages_stand_a_strict_policy(visit: Visit, path: str) -> None:
    """Both demo pages load without any script or style of their own in the markup, and with every file they name."""
    visitor = await visit(path)
    await expect(visitor.page.locator("penstock-chat")).to_have_count(1)
    markup = await (await visitor.page.request.get(visitor.page.url)).text()

    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", markup)
    assert not [line for line in visitor.console if "404" in line]


async def measured(page: Page, name: str) -> float:
    """A number of the live panel."""
    await expect(page.locator(f"#{name}")).to_have_text(re.compile(r"^\d+$"))
    return float(await page.locator(f"#{name}").inner_text())


async def test_live_panel_measures(gateway: FakeGateway, visit: Visit) -> None:
    """The demo page shows the time to the first token, the pace, and the state of the connection."""
    gateway.plan.append(Reply(RETURNS, think=0.3, pause=0.02))
    visitor = await visit("/")
    await visitor.ask("returns?")
    await expect(visitor.answers).to_have_text(RETURNS)

    assert await measured(visitor.page, "first") >= 300
    assert 0 < await measured(visitor.page, "rate") <= 200  # 50 are sent; a busy browser hears of the first late
    assert await measured(visitor.page, "total") > 700
    await expect(visitor.page.locator("#state")).to_have_text("Open")


async def test_demo_page_changes_its_colours(visit: Visit) -> None:
    """The page's colour switch reaches the chat too, and is remembered."""
    visitor = await visit("/", color_scheme="light")
    for _ in range(2):
        await visitor.page.locator("#theme").click()
    await expect(visitor.page.locator("penstock-chat .root")).to_have_attribute("data-theme", "dark")
    await visitor.page.reload()

    await expect(visitor.page.locator("penstock-chat .root")).to_have_attribute("data-theme", "dark")
    assert contrast(await style(visitor.page.locator("body"), "backgroundColor"), "rgb(0, 0, 0)") < 1.5
