// A run written as commands and as a program. Each text can be pasted as it is, once the key is set.

import { write } from "./json.js";

const FEW = 20; // pictures that are named one by one
const quote = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;
/** A file for curl's -F: quoted twice, because `;` and `,` in a name mean something to curl. */
const file = (name) => `-F ${quote(`images=@"${name.replaceAll(/["\\]/g, "\\$&")}"`)}`;
const formText = (value) => (typeof value === "string" ? value : write(value));

/** What a field has if it is not sent. */
const DEFAULTS = { jsonMode: false, granularity: "merged", merge: "auto", cache: false, detail: "high", onError: "partial", deadlineSeconds: 3600, keepInputsSeconds: 0, tier: "standard", evidence: false };

/** The fields of a request that were set, without its pictures. A new run belongs to no batch of an old one. */
const fieldsOf = ({ inputMethod, batch, ...request }) => Object.fromEntries(Object.entries(request).filter(([name, value]) => value !== null && value !== DEFAULTS[name] && (name !== "granularity" || !request.schema)));

const SHELL = `ask() { curl -sS --fail-with-body -H "Authorization: Bearer $EXTRACT_IMAGE_KEY" "$@"; }
run() { # a file for the table, then what curl sends
  local table=$1 job; shift
  job=$(ask "$EXTRACT_IMAGE_URL/api/v1/jobs" "$@") || { echo "$job" >&2; return 1; }
  job=$EXTRACT_IMAGE_URL/api/v1/jobs/$(printf %s "$job" | sed -n 's/.*"id": *"\\(job_[^"]*\\)".*/\\1/p')
  until ask "$job?wait=60" | grep -q '"finishedAt": *"'; do sleep 1; done
  ask "$job/results?format=csv" -o "$table"
}
`;

function curl(jobs) {
  const texts = jobs.map(({ fields, urls, names, folder, table }) => {
    if (urls) return `run ${table} -H 'Content-Type: application/json' --data-binary @- <<'END_OF_REQUEST'\n${write({ inputMethod: "url", images: names, ...fields }, 2)}\nEND_OF_REQUEST\n`;
    const sent = [folder ? '"${IMAGES[@]}"' : names.map(file), Object.entries(fields).map(([name, value]) => `--form-string ${quote(`${name}=${formText(value)}`)}`)];
    return `${folder ? `IMAGES=(); for IMAGE in ${folder}/*; do IMAGES+=(-F "images=@\\"$IMAGE\\""); done\n` : ""}${[`run ${table}`, ...sent.flat()].join(" \\\n  ")}\n`;
  });
  return SHELL + texts.join("");
}

const PROGRAM = (url) => `import json
import os
from pathlib import Path

import requests

URL = os.environ.get("EXTRACT_IMAGE_URL", ${JSON.stringify(url)})
service = requests.Session()
service.headers["Authorization"] = "Bearer " + os.environ["EXTRACT_IMAGE_KEY"]


def run(table, images, fields):
    """Sends files or addresses as one job, waits for its end, and writes its records as a table."""
    if isinstance(images[0], str):
        sent = {"json": {"inputMethod": "url", "images": images, **fields}}
    else:
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        sent = {"data": texts, "files": [("images", (path.name, path.read_bytes())) for path in images]}
    answer = service.post(f"{URL}/api/v1/jobs", **sent, timeout=300)
    if not answer.ok:
        raise SystemExit(answer.text)
    job = f"{URL}/api/v1/jobs/{answer.json()['id']}"
    while not service.get(f"{job}?wait=60", timeout=90).json()["finishedAt"]:
        pass
    Path(table).write_bytes(service.get(f"{job}/results?format=csv", timeout=300).content)

`;

/** A value as Python writes it. */
const python = (value) => write(value, 4).replace(/"[^"\\]*(?:\\.[^"\\]*)*"|true|false|null/g, (part) => ({ "true": "True", "false": "False", null: "None" })[part] ?? part);

const program = (jobs, url) => PROGRAM(url) + jobs.map(({ fields, urls, names, folder, table }) => `
images = ${folder ? `sorted(path for path in Path("${folder}").iterdir() if path.is_file())` : urls ? python(names) : `[Path(name) for name in ${python(names)}]`}
fields = ${python(fields)}
run("${table}", images, fields)
`).join("");

/** The fields that `extract-image run` has as options, and those that it sets itself. */
const OPTIONS = { prompt: "prompt", model: "model", detail: "detail", tier: "tier", maxMoney: "max-money" };
const ITS_OWN = ["schema", "fallbackModels", "jsonMode", "granularity", "merge", "name", "keepInputsSeconds", "onError", "deadlineSeconds", "evidence", "reviewWhen"];

function command(jobs) {
  const { fields } = jobs[0];
  const money = jobs.reduce((all, job) => all + (job.fields.maxMoney ?? 0), 0);
  const names = [...new Set(jobs.flatMap((job) => job.folder || job.names.map((name) => name.replace(/^-/, "./-"))))];
  const listed = names.length > FEW; // a command line has room for some thousand characters
  const words = ["extract-image run", fields.schema && "--schema schema.json", ...Object.entries(OPTIONS).map(([name, option]) => fields[name] && `--${option} ${quote(name === "maxMoney" ? money : fields[name])}`), ...(fields.fallbackModels ?? []).map((model) => `--fallback-model ${quote(model)}`), fields.evidence && "--evidence", "--csv results.csv", listed ? "-" : "--", ...(listed ? [] : names.map(quote))];
  return `${fields.schema ? `cat > schema.json <<'END_OF_SCHEMA'\n${write(fields.schema, 2)}\nEND_OF_SCHEMA\n` : ""}${words.filter(Boolean).join(" \\\n  ")}${listed ? ` <<'END_OF_LIST'\n${names.join("\n")}\nEND_OF_LIST` : ""}\n`;
}

/** The ways to write a run: [id, name, text, notes]. `names`: of each job's pictures, or their addresses. */
export function codesOf({ url, requests, names }) {
  const numbered = (at) => (requests.length > 1 ? `-${at + 1}` : "");
  const jobs = requests.map((request, at) => {
    const urls = request.inputMethod === "url";
    const few = names[at].length <= FEW && names[at].every(Boolean);
    return { fields: fieldsOf(request), urls, names: names[at], folder: urls || few ? "" : `pictures${numbered(at)}`, table: `results${numbered(at)}.csv` };
  });
  const folders = jobs.map((job) => job.folder).filter(Boolean);
  const where = folders.length ? `Put the pictures into the folder ${folders.join(", those of the next job into ")}.` : jobs.every((job) => job.urls) ? "" : "Run it in the folder that has the pictures.";
  const lost = Object.keys(jobs[0].fields).filter((name) => !(name in OPTIONS) && !ITS_OWN.includes(name));
  const exports = `export EXTRACT_IMAGE_URL=${quote(url)}\nexport EXTRACT_IMAGE_KEY='your key'\n`;
  return [
    ["curl", "curl", exports + curl(jobs), ["For bash or zsh.", where]],
    ["python", "Python", program(jobs, url), ["It needs the package requests, and your key in the variable EXTRACT_IMAGE_KEY.", where]],
    ["command", "extract-image run", exports + command(jobs), [where, "Run again, it sends only what it has not read yet.", lost.length > 0 && `The command has no option for ${lost.join(", ")}.`]],
  ];
}
