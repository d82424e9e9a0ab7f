"use strict";
// The page of `adallava serve`: asks its server about an image within one or two budgets, and shows what ran.
const byId = (id) => document.getElementById(id);
const state = { image: null, model: null, abort: null };

// The second answer has the first one's parts.
byId("result-b").innerHTML = byId("result-a").innerHTML;

// MARK: Image

function setImage(file) {
  if (!file || !file.type.startsWith("image/")) return;
  const reader = new FileReader();
  reader.onload = () => {
    state.image = reader.result;
    byId("preview").src = reader.result;
    byId("preview").alt = file.name || "the image";
    byId("preview").hidden = false;
    byId("hint").hidden = true;
    byId("clear").hidden = false;
  };
  reader.readAsDataURL(file);
}

byId("file").addEventListener("change", (event) => setImage(event.target.files[0]));
byId("clear").addEventListener("click", () => {
  state.image = null;
  byId("file").value = "";
  byId("preview").removeAttribute("src");
  byId("preview").hidden = true;
  byId("hint").hidden = false;
  byId("clear").hidden = true;
  byId("file").focus();
});
for (const type of ["dragenter", "dragover"]) {
  document.addEventListener(type, (event) => { event.preventDefault(); byId("drop").classList.add("over"); });
}
for (const type of ["dragleave", "drop"]) {
  document.addEventListener(type, (event) => { event.preventDefault(); byId("drop").classList.remove("over"); });
}
document.addEventListener("drop", (event) => setImage(event.dataTransfer.files[0]));
document.addEventListener("paste", (event) => setImage([...event.clipboardData.files][0]));

// MARK: Budgets

/// A slider's value as the server takes it. Milliseconds go from 1 to 10,000 in equal ratios.
function budgetOf(set) {
  const value = Number(set.querySelector("input[type=range]").value);
  const isTime = set.querySelector("input[value=time]").checked;
  if (!isTime) return { value: value / 100, text: `${value} %` };
  const milliseconds = Number(Math.pow(10, value / 25).toPrecision(2));
  return { value: `${milliseconds}ms`, text: `${milliseconds.toLocaleString("en")} ms` };
}

for (const set of document.querySelectorAll(".budget")) {
  const show = () => {
    const text = budgetOf(set).text;
    set.querySelector("output").textContent = text;
    set.querySelector("input[type=range]").setAttribute("aria-valuetext", text);
  };
  set.addEventListener("input", show);
  show();
}
byId("compare").addEventListener("change", (event) => {
  byId("budget-b").hidden = !event.target.checked;
  byId("result-b").hidden = !event.target.checked;
});

// MARK: Answers

/// The events of a stream, as JSON.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const data = text.slice(0, end).split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      text = text.slice(end + 2);
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function ask(section, budget, signal) {
  const part = (name) => section.querySelector(name);
  // An answer that a newer one has taken the place of writes no more.
  const isCurrent = () => state.abort?.signal === signal;
  part("h2").textContent = `Budget ${budget.text}`;
  part(".answer").textContent = "";
  part(".details").hidden = true;
  part(".problem").hidden = true;
  section.setAttribute("aria-busy", "true");
  const content = [{ type: "text", text: byId("question").value }];
  if (state.image) content.push({ type: "image_url", image_url: { url: state.image } });
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST", signal, headers: { "content-type": "application/json" },
      body: JSON.stringify({
        messages: [{ role: "user", content }], budget: budget.value, stream: true, return_progress: true, stream_options: { include_usage: true },
      }),
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    let isWhole = false;
    for await (const event of events(response)) {
      if (!isCurrent()) return;
      if (event.error) throw new Error(event.error.message);
      if (event.progress) showProgress(part(".progress"), event.progress);
      const delta = event.choices[0]?.delta?.content;
      if (delta) {
        part(".progress").hidden = true;
        part(".answer").textContent += delta;
      }
      if (event.usage) {
        isWhole = true;
        showDetails(section, event);
        if (state.image && event.adaptive.units !== null) showAttention(section, content, event.adaptive.units, isCurrent);
      }
    }
    if (!isWhole) throw new Error("The connection ended before the answer did.");
  } catch (error) {
    if (!isCurrent()) return;
    if (error.name === "AbortError") {
      part(".answer").textContent += " (stopped)";
    } else {
      part(".problem").textContent = error.message;
      part(".problem").hidden = false;
    }
  } finally {
    if (!isCurrent()) return;
    part(".progress").hidden = true;
    section.setAttribute("aria-busy", "false");
  }
}

function showProgress(element, progress) {
  const names = { encode: "encoding the image", select: "selecting image tokens", prefill: "reading the prompt" };
  element.textContent = `${names[progress.phase] ?? progress.phase}: ${Math.round(100 * progress.done / progress.total)} %`;
  element.hidden = false;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/// What ran of each layer, heads left and MLP groups right; then times and tokens.
function showDetails(section, event) {
  const { adaptive, usage } = event;
  const plan = section.querySelector(".plan");
  const prefix = state.model?.adaptive?.prefix_layers ?? 0;
  let on = 0, all = 0;
  plan.replaceChildren(...adaptive.plan.heads.map((heads, index) => {
    const layer = element("div", index < prefix ? "layer prefix" : "layer");
    layer.append(element("span", "", `${index + 1}`));
    for (const bits of [heads, adaptive.plan.mlp_groups[index]]) {
      const row = element("span", "switches");
      for (const bit of bits) {
        row.append(element("i", bit === "1" ? "on" : ""));
        all += 1;
        on += bit === "1" ? 1 : 0;
      }
      layer.append(row);
    }
    return layer;
  }));
  const layers = adaptive.plan.heads.filter((heads, index) => (heads + adaptive.plan.mlp_groups[index]).includes("1")).length;
  const share = `${layers} of ${adaptive.plan.heads.length} layers, ${Math.round(100 * on / all)} % of heads and MLP groups`;
  section.querySelector(".share").textContent = share;
  plan.setAttribute("aria-label", share);

  const phases = [["encode", "encode"], ["prefill", "prefill"], ["decode", "decode"], ["first token", "ttft"], ["whole", "whole"]];
  const predicted = adaptive.predicted_ms, measured = adaptive.measured_ms;
  const longest = Math.max(measured.whole, predicted?.whole ?? 0, 0.001);
  section.querySelector("tbody").replaceChildren(...phases.map(([name, key]) => {
    const row = element("tr");
    const head = element("th", "", name);
    head.scope = "row";
    row.append(head);
    for (const times of [predicted, measured]) row.append(element("td", "number", times ? times[key].toFixed(1) : "–"));
    const bars = element("td", "bars");
    for (const [times, kind] of [[predicted, "bar"], [measured, "bar measured"]]) {
      if (!times) continue;
      const bar = element("div", kind);
      bar.style.width = `${Math.min(100, 100 * times[key] / longest)}%`;
      bars.append(bar);
    }
    row.append(bars);
    return row;
  }));
  const details = usage.prompt_tokens_details;
  const parts = [
    `${usage.completion_tokens} tokens of answer`, `${usage.prompt_tokens} of prompt (${details.image_tokens} of the image, ${details.cached_tokens} known before)`,
  ];
  if (adaptive.load !== null) parts.push(`load ${adaptive.load.toFixed(2)}`);
  if (adaptive.warning) parts.push(adaptive.warning);
  section.querySelector(".usage").textContent = parts.join(" · ");
  section.querySelector(".details").hidden = false;
}

/// The image as the model sees it, dark where the latency token did not look.
async function showAttention(section, content, units, isCurrent) {
  const figure = section.querySelector(".looked"), canvas = figure.querySelector("canvas"), picture = new Image();
  figure.hidden = true;
  const response = await fetch("v1/attention", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ messages: [{ role: "user", content }], units }),
  });
  if (!response.ok) return;
  const { grid, weights, crops, layers } = await response.json();
  picture.src = state.image;
  await picture.decode();
  if (grid === null || !isCurrent()) return;
  const side = canvas.width, context = canvas.getContext("2d");
  const scale = side / (crops ? Math.min(picture.naturalWidth, picture.naturalHeight) : Math.max(picture.naturalWidth, picture.naturalHeight));
  const width = picture.naturalWidth * scale, height = picture.naturalHeight * scale;
  context.fillStyle = "#777";
  context.fillRect(0, 0, side, side);
  context.drawImage(picture, (side - width) / 2, (side - height) / 2, width, height);
  const most = Math.max(...weights), cell = side / grid;
  weights.forEach((weight, index) => {
    // A quarter of the light is left, so that the picture can be recognized.
    context.fillStyle = `rgba(0, 0, 0, ${0.75 * (1 - Math.sqrt(weight / most))})`;
    context.fillRect(index % grid * cell, Math.floor(index / grid) * cell, cell, cell);
  });
  const last = layers[layers.length - 1];
  const text = `${Math.round(100 * last.image_share)} % at the image, ${Math.round(100 * last.own_share)} % at itself, the rest at the text`;
  figure.querySelector(".looked-share").textContent = text;
  canvas.setAttribute("aria-label", `Where the latency token looked: ${text}`);
  figure.hidden = false;
}

byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  state.abort?.abort();
  const abort = new AbortController();
  state.abort = abort;
  byId("stop").disabled = false;
  const asked = [ask(byId("result-a"), budgetOf(byId("budget-a")), abort.signal)];
  if (byId("compare").checked) asked.push(ask(byId("result-b"), budgetOf(byId("budget-b")), abort.signal));
  await Promise.all(asked);
  if (state.abort === abort) byId("stop").disabled = true;
});
byId("stop").addEventListener("click", () => state.abort?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") state.abort?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    byId("form").requestSubmit();
  }
});

// MARK: The server

const strip = { samples: [], last: null, length: 120 };

/// Values of Prometheus's text format by name, labels left out.
function values(text) {
  const found = {};
  for (const line of text.split("\n")) {
    const match = line.match(/^([\w:]+)\{[^}]*\} (\S+)$/);
    if (match) found[match[1]] = Number(match[2]);
  }
  return found;
}

function drawStrip() {
  const { samples, length } = strip;
  const most = Math.max(1, ...samples.map((sample) => sample.running + sample.waiting));
  const width = 240 / length, x = (index) => 240 - (samples.length - index) * width;
  const shapes = [];
  let line = "";
  samples.forEach((sample, index) => {
    const running = 46 * sample.running / most, waiting = 46 * sample.waiting / most;
    shapes.push(`<rect class="running" x="${x(index)}" y="${48 - running}" width="${width}" height="${running}"/>`);
    shapes.push(`<rect class="waiting" x="${x(index)}" y="${48 - running - waiting}" width="${width}" height="${waiting}"/>`);
    if (sample.budget !== null) line += `${line ? "L" : "M"}${x(index) + width / 2} ${47 - 46 * sample.budget}`;
  });
  if (line) shapes.push(`<path class="granted" d="${line}"/>`);
  byId("strip").innerHTML = shapes.join("");
  const now = samples[samples.length - 1];
  const text = `${now.running} running, ${now.waiting} waiting` + (now.budget === null ? "" : `, mean budget ${Math.round(now.budget * 100)} %`)
    + `, ${Math.round(100 * now.memory)} % of the memory for keys and values`;
  byId("strip").setAttribute("aria-label", text);
  byId("now").textContent = text;
}

async function look() {
  try {
    const health = await (await fetch("health")).json();
    byId("health").textContent = health.status === "ok" ? "ready" : health.status;
    byId("health").className = health.status === "ok" ? "ok" : "";
    if (health.status === "loading") return;
    if (!state.model) {
      state.model = (await (await fetch("v1/models")).json()).data[0];
      const adaptive = state.model.adaptive;
      byId("model").textContent = state.model.id + (adaptive ? `, ${adaptive.layers} layers, floor ${Math.round(100 * adaptive.floor)} %` : ", not adaptive");
    }
    const now = values(await (await fetch("metrics")).text());
    const count = now.adallava_budget_count, sum = now.adallava_budget_sum;
    const answers = strip.last ? count - strip.last.count : 0;
    const before = strip.samples[strip.samples.length - 1];
    strip.samples.push({
      running: now["vllm:num_requests_running"], waiting: now["vllm:num_requests_waiting"], memory: now["vllm:kv_cache_usage_perc"],
      budget: answers > 0 ? (sum - strip.last.sum) / answers : before?.budget ?? null,
    });
    strip.last = { count, sum };
    if (strip.samples.length > strip.length) strip.samples.shift();
    drawStrip();
  } catch {
    byId("health").textContent = "not reached";
    byId("health").className = "";
  }
}

async function watch() {
  await look();
  setTimeout(watch, document.hidden ? 10000 : 1000);
}
watch();
