#!/usr/bin/env python3
"""Uses a server with the `openai`, `anthropic` and `litellm` packages, as people's programs do: answers, streams, images, errors, embeddings and batches;
checks its OpenAPI document with `schemathesis` and its metrics with `promtool`.

What is not installed is skipped with a message; scripts/test-clients.sh installs the packages in a folder of their own.

usage: test_clients.py [--binary FILE]
"""
import argparse
import base64
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

from test_page import IMAGE, ROOT, Server, asked

QUESTION = "Describe the image."


def data_url():
    return "data:image/png;base64," + base64.b64encode(IMAGE.read_bytes()).decode()


def messages(question=QUESTION):
    return [{"role": "user", "content": [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": data_url()}}]}]


def test_chat(openai, client, binary):
    """chat: whole and streamed answers are the command line's, with usage and what ran"""
    expected = asked(binary, str(IMAGE), QUESTION, "--budget", "0.6")
    answer = client.chat.completions.create(model="scenes/L", messages=messages(), extra_body={"budget": 0.6})
    assert answer.choices[0].message.content == expected and answer.choices[0].finish_reason == "stop", answer
    assert answer.usage.prompt_tokens_details.cached_tokens is not None and answer.usage.total_tokens > 0
    assert answer.model_extra["adaptive"]["plan"]["attention_heads_per_layer"].count(0) == 4
    text, last = "", None
    for chunk in client.chat.completions.create(
            model="scenes/L", messages=messages(), stream=True, stream_options={"include_usage": True}, extra_body={"budget": 0.6}):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        last = chunk
    assert text == expected and last.usage.completion_tokens == answer.usage.completion_tokens
    several = client.chat.completions.create(model="scenes/L", messages=messages(), n=3, temperature=5, seed=1, max_tokens=5, logprobs=True, top_logprobs=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert all(len(token.top_logprobs) == 2 for choice in several.choices for token in choice.logprobs.content)


def test_structured(openai, client, binary):
    """response_format: what comes back parses as the type that was asked for"""
    schema = {"type": "object", "properties": {"kind": {"enum": ["car", "cat"]}, "sure": {"type": "boolean"}}, "required": ["kind", "sure"], "additionalProperties": False}
    answer = client.chat.completions.create(
        model="scenes/L", messages=messages(), response_format={"type": "json_schema", "json_schema": {"name": "thing", "strict": True, "schema": schema}}, max_tokens=200)
    if answer.choices[0].finish_reason == "stop":
        found = json.loads(answer.choices[0].message.content)
        assert found["kind"] in ("car", "cat") and isinstance(found["sure"], bool) and len(found) == 2, found


def test_errors(openai, client, binary):
    """errors are the package's own types, with the parameter that is wrong"""
    for wanted, change in [
            (openai.NotFoundError, {"model": "gpt-4"}), (openai.BadRequestError, {"temperature": -1}), (openai.BadRequestError, {"frequency_penalty": 1}),
            (openai.BadRequestError, {"extra_body": {"budget": 2}}), (openai.BadRequestError, {"extra_body": {"deadline_unix_ms": 1}}), (openai.BadRequestError, {"stream": True, "top_p": 7})]:
        try:
            client.chat.completions.create(**{"model": "scenes/L", "messages": messages(), **change})
            raise AssertionError(f"{change} was answered")
        except wanted as error:
            assert error.body["message"], error
    try:
        client.with_options(api_key="wrong").models.list()
        raise AssertionError("a wrong key was taken")
    except openai.AuthenticationError:
        pass


def test_other_routes(openai, client, binary):
    """models, completions, responses and embeddings"""
    assert client.models.list().data[0].id == "scenes/L" and client.models.retrieve("scenes/L").id == "scenes/L"
    assert client.completions.create(model="scenes/L", prompt="USER: Hi ASSISTANT:", max_tokens=4).usage.completion_tokens <= 4
    content = [{"type": "input_text", "text": QUESTION}, {"type": "input_image", "image_url": data_url(), "detail": "auto"}]
    expected = asked(binary, str(IMAGE), QUESTION)
    answer = client.responses.create(model="scenes/L", input=[{"role": "user", "content": content}])
    assert answer.output_text == expected and answer.status == "completed"
    with client.responses.stream(model="scenes/L", input=[{"role": "user", "content": content}]) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert text == expected and stream.get_final_response().output_text == expected
    vectors = client.embeddings.create(model="scenes/L", input=[data_url(), data_url()]).data
    assert vectors[0].embedding == vectors[1].embedding and abs(sum(value * value for value in vectors[0].embedding) - 1) < 1e-4
    plain = client.embeddings.create(model="scenes/L", input=data_url(), encoding_format="float").data[0].embedding
    assert max(abs(a - b) for a, b in zip(plain, vectors[0].embedding)) < 1e-6


def test_batches(openai, client, binary):
    """files and batches: results are those of single requests; errors are in a file of their own"""
    lines = [{"custom_id": f"q{i}", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "scenes/L", "messages": messages(question)}}
             for i, question in enumerate(["What is the word?", QUESTION, "Is there a car?"])]
    lines.append({"custom_id": "bad", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}})
    file = client.files.create(file=("in.jsonl", io.BytesIO("\n".join(map(json.dumps, lines)).encode())), purpose="batch")
    assert client.files.list().data[0].id == file.id and client.files.retrieve(file.id).bytes == file.bytes
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    for _ in range(600):
        batch = client.batches.retrieve(batch.id)
        if batch.status not in ("validating", "in_progress"):
            break
        time.sleep(0.1)
    assert batch.status == "completed" and (batch.request_counts.completed, batch.request_counts.failed) == (3, 1), batch
    results = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert [result["custom_id"] for result in results] == ["q0", "q1", "q2"]
    for result, line in zip(results, lines):
        question = line["body"]["messages"][0]["content"][0]["text"]
        assert result["response"]["body"]["choices"][0]["message"]["content"] == asked(binary, str(IMAGE), question)
    errors = client.files.content(batch.error_file_id).text
    assert json.loads(errors)["response"]["status_code"] == 400
    client.files.delete(file.id)
    # The same file, without a server.
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder, "in.jsonl"), pathlib.Path(folder, "out.jsonl")
        source.write_text("\n".join(map(json.dumps, lines)))
        for _ in range(2):
            subprocess.run([binary, "batch", "-m", "scenes/L", "--input", source, "--output", target], check=True, capture_output=True, cwd=ROOT)
        offline = {result["custom_id"]: result for result in map(json.loads, target.read_text().splitlines())}
        assert len(target.read_text().splitlines()) == 4 and offline["bad"]["response"]["status_code"] == 400
        for result in results:
            assert offline[result["custom_id"]]["response"]["body"]["choices"][0]["message"] == result["response"]["body"]["choices"][0]["message"]


def test_anthropic(anthropic, client, binary):
    """Anthropic's package: whole and streamed answers, token counts, errors"""
    expected = asked(binary, str(IMAGE), QUESTION)
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(IMAGE.read_bytes()).decode()}
    turns = [{"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]}]
    answer = client.messages.create(model="scenes/L", max_tokens=100, messages=turns)
    assert answer.content[0].text == expected and answer.stop_reason == "end_turn", answer
    with client.messages.stream(model="scenes/L", max_tokens=100, messages=turns, extra_body={"budget": 1}) as stream:
        assert "".join(stream.text_stream) == expected
        final = stream.get_final_message()
    assert final.content[0].text == expected and final.usage.output_tokens == answer.usage.output_tokens
    counted = client.messages.count_tokens(model="scenes/L", messages=turns).input_tokens
    assert counted == answer.usage.input_tokens + answer.usage.cache_read_input_tokens
    try:
        client.messages.create(model="claude", max_tokens=5, messages=turns)
        raise AssertionError("another model answered")
    except anthropic.NotFoundError as error:
        assert error.body["error"]["type"] == "not_found_error"


def test_litellm(litellm, client, binary):
    """LiteLLM: whole and streamed answers about an image, budgets, and errors of its own types"""
    expected = asked(binary, str(IMAGE), QUESTION, "--budget", "0.6")
    common = {"model": "openai/scenes/L", "api_base": str(client.base_url), "api_key": "secret", "messages": messages(), "num_retries": 0, "extra_body": {"budget": 0.6}}
    answer = litellm.completion(**common)
    assert answer.choices[0].message.content == expected and answer.usage.completion_tokens > 0, answer
    text = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**common, stream=True))
    assert text == expected, text
    for wanted, change in [(litellm.BadRequestError, {"extra_body": {"budget": 2}}), (litellm.AuthenticationError, {"api_key": "wrong"}), (litellm.NotFoundError, {"model": "openai/gpt-4"})]:
        try:
            litellm.completion(**{**common, **change})
            raise AssertionError(f"{change} was answered")
        except wanted:
            pass


def test_schema(schemathesis, client, binary):
    """schemathesis: no request that the OpenAPI document allows, or just does not, ends in a server's error or an undocumented form"""
    tool = pathlib.Path(sys.executable).parent / "schemathesis"
    address = str(client.base_url).removesuffix("/v1/")
    # The tool keeps a database of examples in its working directory.
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(
            [tool, "run", address + "/openapi.json", "--url", address, "-H", "Authorization: Bearer secret", "--checks", "not_a_server_error,content_type_conformance,response_schema_conformance",
             "--max-examples", "12", "--seed", "1", "--request-timeout", "60", "--workers", "2", "--phases", "fuzzing", "--no-color"],
            capture_output=True, text=True, timeout=900, cwd=folder)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]


def test_promtool(promtool, client, binary):
    """promtool check metrics finds nothing wrong but the colons of vLLM's names, which dashboards know"""
    call = urllib.request.Request(str(client.base_url).removesuffix("/v1/") + "/metrics", headers={"Authorization": "Bearer secret"})
    text = urllib.request.urlopen(call).read()
    result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    problems = [line for line in (result.stdout + result.stderr).decode().splitlines() if line and not (line.startswith("vllm:") and "':'" in line)]
    assert not problems, problems


def package(name):
    """A package, or `None` where it is not installed."""
    try:
        return __import__(name)
    except ImportError:
        return None


def main():
    # LiteLLM fetches a list of prices when it is imported, unless told not to.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / ".build/release/adallava")
    options = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        keys = pathlib.Path(folder, "keys")
        keys.write_text("secret\n")
        server = Server(options.binary, "--api-key-file", str(keys))
        try:
            address = f"http://127.0.0.1:{server.port}"
            packages = {name: package(name) for name in ("openai", "anthropic", "litellm", "schemathesis")}
            packages["promtool"] = shutil.which("promtool")
            openai, anthropic = packages["openai"], packages["anthropic"]
            if not openai:
                print("test_clients: skipped, openai is not installed", file=sys.stderr)
                return 0
            clients = {"openai": openai.OpenAI(base_url=address + "/v1", api_key="secret", max_retries=0, timeout=120)}
            if anthropic:
                clients["anthropic"] = anthropic.Anthropic(base_url=address, api_key="secret", max_retries=0, timeout=120)
            for name, test in [("openai", test) for test in (test_chat, test_structured, test_errors, test_other_routes, test_batches)] + [
                    ("anthropic", test_anthropic), ("litellm", test_litellm), ("schemathesis", test_schema), ("promtool", test_promtool)]:
                if not packages[name]:
                    print(f"skipped {test.__doc__}: {name} is not installed")
                    continue
                try:
                    test(packages[name], clients.get(name, clients["openai"]), options.binary)
                    print(f"ok      {test.__doc__}")
                except Exception as error:
                    failures += 1
                    print(f"FAILED  {test.__doc__}\n        {type(error).__name__}: {error}")
        finally:
            server.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
