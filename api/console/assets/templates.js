// Ready-made fields.

import { newField } from "./schema.js";

const MONEY = "In ISO 4217, such as EUR";
const LINES = `
  description text
  quantity? number
  unit_price? number
  amount number`;
const PRINTED = "Take numbers and dates as they are printed, and leave out what is not there.";

/** A line: name (with ? it need not be there), type, description, and after a bar the values of a choice. Two spaces: within the field above. */
const fieldsOf = (text) => {
  const made = [];
  for (const [, inside, name, may, type, about, values] of text.matchAll(/^( *)(\w+)(\??) (\w+) ?([^|\n]*)\|?(.*)$/gm)) {
    const field = { ...newField(name, type), description: about, required: !may, values: values ? values.split(", ") : [] };
    (inside ? made.at(-1).fields : made).push(field);
  }
  return made;
};

/** `{label, prompt, fields()}` for each. */
export const TEMPLATES = [
  ["Receipt", `Read this receipt. ${PRINTED}`, `
merchant text
date date
time? text As HH:MM
total number With tax
tax? number
currency text ${MONEY}
payment? choice |cash, card, other
items objects Each line${LINES}`],
  ["Invoice", `Read this invoice. ${PRINTED}`, `
invoice_number text
invoice_date date
due_date? date
supplier object Who sends the invoice
  name text
  address? text
  vat_id? text
customer? text Who pays
net? number Without tax
tax? number
total number With tax
currency text ${MONEY}
iban? text
items objects Each line${LINES}`],
  ["Business card", "Read this business card.", `
name text
title? text Position
company? text
emails texts
phones texts With the country's code if there is one
website? text
address? text`],
  ["Product", "Describe the product in this picture.", `
name text
brand? text
category text
colours texts
description text One or two sentences
price? number
currency? text ${MONEY}
barcode? text The digits under the bars
damaged boolean Whether damage can be seen`],
  ["ID", "Read this identity document. Copy names and numbers letter by letter.", `
document_type choice |passport, identity card, driving licence, residence permit, other
document_number text
surname text
given_names text
birth_date date
nationality? text Three letters, as in the machine-readable zone
issued? date
expires? date
issuing_country? text`],
  ["Table", "Read the table in this picture, row by row.", `
title? text Above the table
columns texts The heads, from left to right
rows objects From top to bottom
  cells texts From left to right; an empty text for an empty cell`],
].map(([label, prompt, lines]) => ({ label, prompt, fields: () => fieldsOf(lines) }));
