#!/usr/bin/env python3
"""Makes tests/golden/tokenizer/chat.json: what Transformers' apply_chat_template renders.

    pip install transformers gguf
    python tests/golden/make_chat_goldens.py DEMO.gguf

Each entry holds a template, a context and the rendered text, or null where Transformers raises. The templates
but the demo model's own were written for these tests, in the manner of the families that they are named after.
"""

import json
import pathlib
import sys

import gguf
from transformers import PreTrainedTokenizerFast

OUT = pathlib.Path(__file__).parent / "tokenizer"

LLAMA3 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- A system message comes first. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start|>system\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system + "<|end|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start|>' + message['role'] + '\\n\\n'+ message['content'] | trim + '<|end|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("only one call at once") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start|>assistant\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}
        {{- "}<|end|>" }}
    {%- elif message.role == "tool" %}
        {{- "<|start|>tool\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|end|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant\\n\\n' }}
{%- endif %}
"""

QWEN = """{%- if tools %}
    {{- '<|start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|start|>system\\n' + messages[0].content + '<|end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and not(message.content.startswith('<r>') and message.content.endswith('</r>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|start|>' + message.role + '\\n' + content + '<|end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning is defined and message.reasoning is not none %}
            {%- set thought = message.reasoning %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|start|>user' }}{%- endif %}
        {{- '\\n<r>\\n' + content + '\\n</r>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant\\n' }}
    {%- if thinking is defined and thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("roles must alternate") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"""

# One line each: a corner of Jinja or Python that templates lean on.
CORNERS = [
    "{{ messages|length }} {{ messages[0] }}",
    "{{ true }} {{ none }} {{ false }} {{ 1.0 }} {{ 1e20 }} {{ 0.00001 }} {{ 3 // 2 }} {{ 3 / 2 }} {{ 2 ** 3 }} {{ -7 % 3 }}",
    "{{ extra }}|{{ extra | tojson }}|{{ extra | tojson(indent=2) }}|{{ extra | tojson(ensure_ascii=true) }}",
    "{{ extra | tojson(sort_keys=true) }}|{{ extra | tojson(separators=(',', ':')) }}",
    "{{ extra.list | join(', ') }} {{ extra.list | map('string') | join('-') }} {{ ['a', 'b'] | first }}",
    "{% for k, v in extra.items() %}{{ k }}={{ v }};{% endfor %}{% for k in extra %}{{ k }}{% endfor %}",
    "{% for i in range(10) %}{% if i == 3 %}{% continue %}{% elif i == 6 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}end\n",
    "a\n  {%- generation -%}\n  b  \n  {%- endgeneration %}\n c {# {% generation %} #}{% raw %}{% generation %}{% endraw %}",
    "{{ missing }}|{{ messages[0].missing }}|{{ messages[0]['missing'] is defined }}|{{ missing is none }}",
    "{{ missing.attribute }}",
    "{{ 'a' + missing }}",
    "{{ 'a' + 1 }}",
    "{{ raise_exception('no good') }}",
    "{{ messages[0].content.upper() }} {{ 'a,b'.split(',') }} {{ ' x '.strip() }}| {{ 'abc'.replace('b', 'x') }} {{ 'Ab'.title() }}",
    "{{ 'abc'[1:] }} {{ 'abc'[-1] }} {{ 'abc'[::-1] }} {{ [1,2,3][:-1] }} {{ 'x' * 3 }} {{ 'b' in 'abc' }} {{ 'a' ~ 1 ~ 'b' }}",
    "{% set x %}  hi\n{% endset %}[{{ x }}]{% set ns = namespace(n=1) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "{% macro f(x, y='d') %}<{{ x }}{{ y }}>{% endmacro %}{{ f(1) }}{{ f(2, y='z') }}",
    "{% if messages is sequence and extra is mapping and messages[0].content is string %}ok{% endif %}",
    "  {% if true %}\n  yes\n  {% endif %}\n  {{ 'no' if false else 'maybe' }}  \n\n",
    "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}",
    "{{ extra.get('list') }} {{ extra.get('nope', 'dflt') }} {{ extra.keys() | list }} {{ extra.values() | list | length }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | map(attribute='role') | join(',') }}",
    "{{ extra.list | sum }} {{ extra.list | max }} {{ 'a' if extra.list else 'b' }} {{ extra.text | length }} {{ extra.text[:2] }}",
    "{{ \"it's\" }} {{ ['it\\'s', 'say \"x\"', '\\n'] }} {{ extra.nested }}",
    "{{ 'one two'.split() }} {{ 'a\\nb'.splitlines() }} {{ 'x'.startswith(('x', 'y')) }} {{ '%s-%d' | format('a', 3) }} {{ 'abc'.find('c') }}",
    "{{ 'prefix-x'.removeprefix('prefix-') }} {{ '{} {}'.format(1, 'b') }} {{ 'k=v'.partition('=')[2] }}",
    "{%- set items = [] -%}{%- for m in messages -%}{%- set _ = m -%}{%- endfor -%}{{ items }}{{ dict(a=1) }} {{ (1, 2) }}",
    "{{ 3.0 | int }} {{ '7' | int + 1 }} {{ 2.5 | round }} {{ 'x' | default('y') }} {{ missing | default('y') }} {{ '' | default('y', true) }}",
    "{{ strftime_now('literal') }} {{ 'abc' | capitalize }} {{ 'a b' | title }} {{ ['b', 'a'] | sort }} {{ [1, 2] + [3] }} {{ 'x' | indent(2) }}",
    "{{ 'unclosed",
    "{% for x in messages %}",
    "{% unknown %}",
]

MESSAGES = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Hi <there> & \"you\" é👍"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello!"},
    {"role": "user", "content": "  And now?\n"},
]
TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "It's the weather: 'ö'", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1.5}},
        "required": ["city"], "additionalProperties": False, "default": None, "empty": {}, "none": []}}}]
CALLS = MESSAGES[:2] + [
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {
        "name": "weather", "arguments": {"city": "Köln", "days": 2}}}]},
    {"role": "tool", "content": "22 °C"}, {"role": "tool", "content": "rain"}]
EXTRA = {"list": [3, 1, 2], "text": "hé\n\"llo\"/</a>", "num": 1.5, "none": None, "yes": True,
         "nested": {"z": [], "a": {"b": [None, "'", 1e-7, {}]}}, "10": 10}


def contexts():
    prompt = {"add_generation_prompt": True}
    yield {"messages": MESSAGES}
    yield {"messages": MESSAGES, **prompt}
    yield {"messages": MESSAGES[1:2], **prompt, "thinking": False}
    yield {"messages": MESSAGES, "tools": TOOLS, **prompt}
    yield {"messages": CALLS, "tools": TOOLS, **prompt}
    yield {"messages": MESSAGES[:3], "continue_final_message": True}
    yield {"messages": MESSAGES[1:2] + [{"role": "assistant", "content": "  It is "}], "continue_final_message": True}
    yield {"messages": MESSAGES[1:2] + [{"role": "user", "content": "twice"}], **prompt}


def render(tokenizer, template, context):
    arguments = dict(context)
    messages = arguments.pop("messages")
    try:
        return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **arguments)
    except Exception as error:  # whatever a template raises
        print(f"raises {type(error).__name__}: {error} | {template[:60]!r}", file=sys.stderr)
        return None


def main():
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(OUT / "byte_level" / "tokenizer.json"),
                                        bos_token="<|text|>", eos_token="<|end|>")
    field = gguf.GGUFReader(sys.argv[1]).fields["tokenizer.chat_template"]
    demo = bytes(field.parts[field.data[0]]).decode()
    entries = []
    for name, template in [("smollm2", demo), ("llama3", LLAMA3), ("qwen", QWEN), ("mistral", MISTRAL)]:
        cases = [{"context": context, "text": render(tokenizer, template, context)} for context in contexts()]
        entries.append({"name": name, "template": template, "cases": cases})
    for index, template in enumerate(CORNERS):
        context = {"messages": MESSAGES, "extra": EXTRA}
        cases = [{"context": context, "text": render(tokenizer, template, context)}]
        entries.append({"name": f"corner {index}", "template": template, "cases": cases})
    (OUT / "chat.json").write_text(json.dumps(entries, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
