// A run written as commands and as a program. Each text can be pasted as it is, once the key is set.

const FEW = 20; // files that are named one by one
const quote = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;
/** A file for curl's -F: quoted twice, because `;` and `,` in a name mean something to curl. */
const file = (name) => quote(`images=@"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`);

/** What a field has if it is not sent. */
const DEFAULTS = { jsonMode: false, granularity: "merged", merge: "auto", cache: false, detail: "high", onError: "partial", deadlineSeconds: 3600, keepInputsSeconds: 0, tier: "standard", evidence: false };

/** The fields of the request that were set, without the pictures. */
function fieldsOf(request) {
  const leave = (name, value) => name === "inputMethod" || value === null || value === DEFAULTS[name] || (name === "granularity" && request.schema);
  return Object.fromEntries(Object.entries(request).filter(([name, value]) => !leave(name, value)));
}
const isUrl = (request) => request.inputMethod === "url";
const formText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function notesOf({ requests, names }) {
  const notes = [];
  if (requests.some((request, at) => !isUrl(request) && (names[at].length > FEW || names[at].some((name) => !name)))) notes.push("The pictures are taken from the folder pictures: put them there.");
  else if (requests.some((request) => !isUrl(request))) notes.push("Run it in the folder that has the pictures.");
  return notes;
}
const fromFolder = (request, names) => !isUrl(request) && (names.length > FEW || names.some((name) => !name));

function curl(run) {
  const parts = [`export EXTRACT_IMAGE_URL=${quote(run.url)}`, "export EXTRACT_IMAGE_KEY='your key'", ""];
  run.requests.forEach((request, at) => {
    const fields = fieldsOf(request);
    const send = ['JOB=$(curl -sS --fail-with-body "$EXTRACT_IMAGE_URL/api/v1/jobs" \\', '  -H "Authorization: Bearer $EXTRACT_IMAGE_KEY" \\'];
    if (run.requests.length > 1) parts.push(`# Job ${at + 1} of ${run.requests.length}`);
    let ending = "";
    if (isUrl(request)) {
      send.push("  -H 'Content-Type: application/json' --data-binary @- <<'END_OF_REQUEST'");
      ending = `\n${JSON.stringify({ inputMethod: "url", images: run.names[at], ...fields }, null, 2)}\nEND_OF_REQUEST\n`;
    } else {
      if (fromFolder(request, run.names[at])) {
        parts.push('IMAGES=(); for IMAGE in pictures/*; do IMAGES+=(-F "images=@\\"$IMAGE\\""); done');
        send.push('  "${IMAGES[@]}" \\');
      } else for (const name of run.names[at]) send.push(`  -F ${file(name)} \\`);
      const texts = Object.entries(fields).map(([name, value]) => `  --form-string ${quote(`${name}=${formText(value)}`)}`);
      send.push(texts.join(" \\\n"));
    }
    parts.push(`${send.join("\n")}${ending} | sed -n 's/.*"id": *"\\(job_[^"]*\\)".*/\\1/p')`.replace(/\n \| sed/, "\n) && JOB=$(printf '%s' \"$JOB\" | sed"));
    const results = run.requests.length > 1 ? `results-${at + 1}.csv` : "results.csv";
    parts.push('until curl -sS -H "Authorization: Bearer $EXTRACT_IMAGE_KEY" "$EXTRACT_IMAGE_URL/api/v1/jobs/$JOB?wait=60" | grep -Eq \'"finishedAt": *"\'; do sleep 1; done', `curl -sS --fail-with-body -H "Authorization: Bearer $EXTRACT_IMAGE_KEY" "$EXTRACT_IMAGE_URL/api/v1/jobs/$JOB/results?format=csv" -o ${results}`, "");
  });
  return { text: parts.join("\n"), notes: ["For bash or zsh.", ...notesOf(run)] };
}

/** A value as Python writes it. */
function python(value, indent = "") {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const deeper = `${indent}    `;
  const array = Array.isArray(value);
  const entries = array ? value.map((one) => python(one, deeper)) : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${python(one, deeper)}`);
  if (!entries.length) return array ? "[]" : "{}";
  return `${array ? "[" : "{"}\n${entries.map((one) => `${deeper}${one},\n`).join("")}${indent}${array ? "]" : "}"}`;
}

function pythonProgram(run) {
  const lines = ["import json", "import os", "from pathlib import Path", "", "import requests", "", `URL = os.environ.get("EXTRACT_IMAGE_URL", ${JSON.stringify(run.url)})`, 'HEADERS = {"Authorization": f"Bearer {os.environ[\'EXTRACT_IMAGE_KEY\']}"}', "", "",
    "def send(images, fields):", '    """Sends files or addresses as one job, and returns its id."""', "    if isinstance(images[0], str):", '        body = {"inputMethod": "url", "images": images, **fields}', '        answer = requests.post(f"{URL}/api/v1/jobs", json=body, headers=HEADERS, timeout=300)', "    else:",
    "        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}", '        files = [("images", (path.name, path.read_bytes())) for path in images]', '        answer = requests.post(f"{URL}/api/v1/jobs", data=texts, files=files, headers=HEADERS, timeout=300)', "    if not answer.ok:", "        raise SystemExit(answer.text)", '    return answer.json()["id"]', "", "",
    "def wait(job):", '    """Waits until the job has ended, and returns it."""', "    while True:", '        seen = requests.get(f"{URL}/api/v1/jobs/{job}?wait=60", headers=HEADERS, timeout=90).json()', '        if seen["finishedAt"]:', "            return seen", "", ""];
  run.requests.forEach((request, at) => {
    const images = isUrl(request) ? python(run.names[at]) : fromFolder(request, run.names[at]) ? 'sorted(path for path in Path("pictures").iterdir() if path.is_file())' : `[Path(name) for name in ${python(run.names[at])}]`;
    const results = run.requests.length > 1 ? `results-${at + 1}.csv` : "results.csv";
    lines.push(`images = ${images}`, `fields = ${python(fieldsOf(request))}`, "job = send(images, fields)", "print(job, wait(job)[\"status\"])", 'table = requests.get(f"{URL}/api/v1/jobs/{job}/results?format=csv", headers=HEADERS, timeout=300)', `Path("${results}").write_bytes(table.content)`, "");
  });
  return { text: lines.join("\n"), notes: ["It needs the package requests, and the key in the variable EXTRACT_IMAGE_KEY.", ...notesOf(run)] };
}

/** The fields that `extract-image run` has as options. */
const OPTIONS = { prompt: "prompt", model: "model", detail: "detail", maxMoney: "max-money", maxCredits: "max-credits" };

function command(run) {
  const fields = fieldsOf(run.requests[0]);
  const lines = [`export EXTRACT_IMAGE_URL=${quote(run.url)}`, "export EXTRACT_IMAGE_KEY='your key'"];
  const words = ["extract-image run"];
  if (fields.schema) {
    lines.push("cat > schema.json <<'END_OF_SCHEMA'", JSON.stringify(fields.schema, null, 2), "END_OF_SCHEMA");
    words.push("--schema schema.json");
  }
  const money = run.requests.reduce((all, request) => all + (request.maxMoney ?? 0), 0);
  for (const [name, option] of Object.entries(OPTIONS)) if (fields[name] !== undefined) words.push(`--${option} ${quote(name === "maxMoney" ? money : fields[name])}`);
  for (const model of fields.fallbackModels ?? []) words.push(`--fallback-model ${quote(model)}`);
  words.push("--csv results.csv");
  const taken = run.requests.flatMap((request, at) => (fromFolder(request, run.names[at]) ? ["pictures"] : run.names[at].map((name) => (name.startsWith("-") ? `./${name}` : name))));
  words.push("--", ...new Set(taken.map(quote)));
  const lost = Object.keys(fields).filter((name) => !(name in OPTIONS) && !["schema", "fallbackModels", "jsonMode", "granularity", "merge", "name", "batch", "keepInputsSeconds", "onError", "deadlineSeconds"].includes(name) && fields[name] !== false);
  return { text: `${[...lines, words.join(" \\\n  ")].join("\n")}\n`, notes: [...notesOf(run), "The command sends only what it has not read yet when you run it again.", ...(lost.length ? [`The command has no option for ${lost.join(", ")}.`] : [])] };
}

export const CODES = [["curl", "curl", curl], ["python", "Python", pythonProgram], ["command", "extract-image run", command]];
