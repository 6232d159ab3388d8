// Reads pairs of scripts with a parser, and says where one does not mean the same as the other. Each name of the first must have one
// name in the second, and no two names the same. Names that others can read must not differ: properties, imports and exports.
// Run as: node --expose-internals same_script.mjs FIRST SECOND [FIRST SECOND …]

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { parse } = createRequire(import.meta.url)("internal/deps/acorn/acorn/dist/acorn");
const read = (path) => parse(readFileSync(path, "utf8"), { ecmaVersion: "latest", sourceType: "module" });
const SKIPPED = new Set(["start", "end", "raw", "loc", "range"]);

/** `true` for `!0`, and `let` for `const`. */
function plain(node) {
  if (node?.type === "UnaryExpression" && node.operator === "!" && node.argument.type === "Literal" && [0, 1].includes(node.argument.value)) {
    return { type: "Literal", value: !node.argument.value };
  }
  return node?.type === "VariableDeclaration" && node.kind === "const" ? { ...node, kind: "let" } : node;
}

function compare(first, second, path, names) {
  const [one, other] = [plain(first), plain(second)];
  if (one?.type === "Identifier" && other?.type === "Identifier") return names(one.name, other.name, path);
  if (one === null || typeof one !== "object") {
    if (one !== other) throw new Error(`${path}: ${one} became ${other}`);
    return;
  }
  const keys = Object.keys(one).filter((key) => !SKIPPED.has(key) && !(one.type === "Literal" && key === "regex"));
  for (const key of keys) {
    const named = (["MemberExpression", "Property", "MethodDefinition", "PropertyDefinition"].includes(one.type) && ["property", "key"].includes(key) && !one.computed) || /^(Import|Export)Specifier$/.test(one.type);
    compare(one[key], other?.[key], `${path}.${key}`, named ? same : names);
  }
}

function same(one, other, path) {
  if (one !== other) throw new Error(`${path}: the property ${one} became ${other}`);
}

for (let at = 2; at < process.argv.length; at += 2) {
  const [there, back] = [new Map(), new Map()];
  const names = (one, other, path) => {
    if ((there.get(one) ?? other) !== other || (back.get(other) ?? one) !== one) throw new Error(`${path}: ${one} became ${other}`);
    there.set(one, other);
    back.set(other, one);
  };
  const [first, second] = [read(process.argv[at]), read(process.argv[at + 1])];
  compare(first, second, process.argv[at], names);
  for (const node of first.body) {
    for (const name of [node.declaration?.id?.name, ...(node.declaration?.declarations ?? []).map((one) => one.id.name)]) {
      if (name && node.type.startsWith("Export") && there.get(name) !== name) throw new Error(`the export ${name} became ${there.get(name)}`);
    }
  }
  console.log([...there].filter(([one, other]) => one !== other).map(([one]) => one).join(" "));
}
