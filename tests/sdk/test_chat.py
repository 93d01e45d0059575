"""Conversations in a context, rendered by the model's template."""

from __future__ import annotations

import pytest
from inferlet import Context, Failure, get_model
from inferlet.chat import Chat, compile_template

from tests.sdk.scripted import END, ScriptedHost, hosted

OPENING = "<|start|>assistant: "


async def test_a_conversation_is_rendered_once_with_the_opening_of_an_answer() -> None:
    with hosted(ScriptedHost(script=[*b"ok", END])) as host:
        context = await Context.create(await get_model())
        await context.system("be brief")
        await context.user("hello")
        assert context.tokens == []
        await context.generate()
        text = "<|start|>system: be brief<|end|><|start|>user: hello<|end|>" + OPENING
        assert host.passes[0].tokens == host.encode(text)


async def test_the_next_turn_adds_only_what_is_new() -> None:
    with hosted(ScriptedHost(script=[*b"ok", END, *b"no", END])) as host:
        context = await Context.create(await get_model())
        await context.user("a")
        await context.generate()
        await context.user("b")
        await context.generate()
        asked = host.passes[3]
        assert asked.tokens == [END, *host.encode("<|start|>user: b<|end|>" + OPENING)]


async def test_a_turn_cut_short_is_closed_by_the_template() -> None:
    with hosted(ScriptedHost(script=b"okx")) as host:
        context = await Context.create(await get_model())
        await context.user("a")
        await context.generate(max_tokens=2)
        await context.user("b")
        await context.generate(max_tokens=1)
        text = "k<|end|><|start|>user: b<|end|>" + OPENING
        assert host.passes[2].tokens == host.encode(text)


async def test_generating_again_goes_on_with_the_same_turn() -> None:
    with hosted(ScriptedHost(script=b"okay")) as host:
        context = await Context.create(await get_model())
        await context.user("a")
        await context.generate(max_tokens=2)
        await context.generate(max_tokens=1)
        assert host.passes[2].tokens == [*b"k"]


async def test_flushing_leaves_the_answer_unopened() -> None:
    with hosted(ScriptedHost(script=[END])) as host:
        context = await Context.create(await get_model())
        await context.system("s")
        await context.flush()
        await context.user("u")
        await context.generate()
        assert host.passes[0].tokens == host.encode("<|start|>system: s<|end|>")
        assert host.passes[1].tokens == host.encode("<|start|>user: u<|end|>" + OPENING)


async def test_forks_go_on_with_conversations_of_their_own() -> None:
    with hosted(ScriptedHost(script=[END, END])) as host:
        context = await Context.create(await get_model())
        await context.system("s")
        await context.flush()
        child = await context.fork()
        await child.user("child")
        await context.user("parent")
        await child.generate()
        await context.generate()
        assert (await child.text()).endswith("user: child<|end|>" + OPENING + "<|end|>")
        assert "child" not in await context.text()
        assert host.passes[-1].tokens == host.encode("<|start|>user: parent<|end|>" + OPENING)


async def test_a_template_that_rewrites_history_is_rendered_from_its_start() -> None:
    """Some drop the reasoning of earlier turns."""
    template = "{{ messages | length }}:" + "{% for m in messages %}{{ m.content }};{% endfor %}"
    with hosted(ScriptedHost(script=[END, END], template=template)) as host:
        context = await Context.create(await get_model())
        await context.fill("> ")
        await context.user("a")
        await context.generate()
        await context.user("b")
        await context.generate()
        assert await context.text() == "> 3:a;;b;<|end|>"
        assert host.passes[1].tokens == host.encode("3:a;;b;")


async def test_a_model_without_a_template_says_so() -> None:
    with hosted(ScriptedHost(template="")):
        context = await Context.create(await get_model())
        with pytest.raises(Failure, match="'first' has no chat template"):
            await context.user("a")


async def test_a_template_can_refuse_a_conversation() -> None:
    template = "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}"
    with hosted(ScriptedHost(template=template)):
        context = await Context.create(await get_model())
        await context.system("a")
        with pytest.raises(Failure, match="refuses the conversation: user first"):
            await context.flush()


def test_templates_may_leave_loops_and_strip_lines() -> None:
    template = compile_template(
        "{% for m in messages %}\n    {% if loop.index > 1 %}{% break %}{% endif %}\n"
        "{{ m.role }}\n{% endfor %}"
    )
    assert template.render(messages=[{"role": "a"}, {"role": "b"}]) == "a\n"


def test_templates_find_what_their_authors_had() -> None:
    """JSON is not escaped for HTML, absent tools are none, and today is a date."""
    template = "{{ messages[0] | tojson }}{{ strftime_now('%Y') | length }}{{ tools is none }}"
    chat = Chat(compile_template(template))
    chat.add("user", "é<b>")
    assert chat.render(prompt=True) == '{"role": "user", "content": "é<b>"}4True'


def test_a_template_that_is_no_jinja_says_so() -> None:
    with pytest.raises(Failure, match="not valid Jinja"):
        compile_template("{% if %}")
