"""Tables of words: months, numbers, units and the names that documents give to fields. All words are folded (see letters.py)."""

from __future__ import annotations

from collections.abc import Mapping

#: The months of the languages in Latin script, January to December: English, German, French, Spanish, Italian, Dutch, Portuguese, Polish
#: (both cases), Swedish, Danish and Norwegian, Finnish, Czech (both cases), Hungarian, Romanian, Turkish, Croatian, Indonesian.
_MONTHS = """
january february march april may june july august september october november december
januar februar marz april mai juni juli august september oktober november dezember
janner feber maerz april mai juni juli august september oktober november dezember
janvier fevrier mars avril mai juin juillet aout septembre octobre novembre decembre
enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre
januari februari maart april mei juni juli augustus september oktober november december
janeiro fevereiro marco abril maio junho julho agosto setembro outubro novembro dezembro
styczen luty marzec kwiecien maj czerwiec lipiec sierpien wrzesien pazdziernik listopad grudzien
stycznia lutego marca kwietnia maja czerwca lipca sierpnia wrzesnia pazdziernika listopada grudnia
januari februari mars april maj juni juli augusti september oktober november december
januar februar marts april maj juni juli august september oktober november desember
tammikuuta helmikuuta maaliskuuta huhtikuuta toukokuuta kesakuuta heinakuuta elokuuta syyskuuta lokakuuta marraskuuta joulukuuta
leden unor brezen duben kveten cerven cervenec srpen zari rijen listopad prosinec
ledna unora brezna dubna kvetna cervna cervence srpna zari rijna listopadu prosince
januar februar marcius aprilis majus junius julius augusztus szeptember oktober november december
ianuarie februarie martie aprilie mai iunie iulie august septembrie octombrie noiembrie decembrie
ocak subat mart nisan mayis haziran temmuz agustos eylul ekim kasim aralik
sijecnja veljace ozujka travnja svibnja lipnja srpnja kolovoza rujna listopada studenoga prosinca
januari februari maret april mei juni juli agustus september oktober november desember
"""
#: Abbreviations that are not the first three letters of a month.
_SHORT = """
jan feb mar apr may jun jul aug sept oct nov dec
janv fevr mars avr mai juin juil aout sept oct nov dec
ene febr marz abr mayo jun jul ago set octu nov dic
gen febb mrt aprl mag giu lug agos sett ott nove dicem
jan feb mrz apr mai jun jul aug sep okt nov dez
"""

#: The numbers from 0 on, in English, German, French, Spanish, Italian, Dutch.
_NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve
null eins zwei drei vier funf sechs sieben acht neun zehn elf zwolf
zero un deux trois quatre cinq six sept huit neuf dix onze douze
cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce
zero uno due tre quattro cinque sei sette otto nove dieci undici dodici
nul een twee drie vier vijf zes zeven acht negen tien elf twaalf
null ein zwo drei vier fuenf sechs sieben acht neun zehn elf zwoelf
"""


def _months() -> dict[str, frozenset[int]]:
    """Month names and their beginnings of three letters. A name that two languages give to different months has both."""
    found: dict[str, set[int]] = {}
    for row in (_MONTHS + _SHORT).strip().splitlines():
        for number, name in enumerate(row.split(), 1):
            found.setdefault(name, set()).add(number)
    for row in _MONTHS.strip().splitlines()[:8]:
        for number, name in enumerate(row.split(), 1):
            found.setdefault(name[:3], set()).add(number)
    # "jui" begins June and July in French, and is written for neither.
    return {name: frozenset(numbers) for name, numbers in found.items() if name != "jui"}


def _numbers() -> dict[str, int]:
    return {word: number for row in _NUMBERS.strip().splitlines() for number, word in enumerate(row.split())}


MONTHS: Mapping[str, frozenset[int]] = _months()
NUMBERS: Mapping[str, int] = _numbers()

#: Signs and names of a currency, all folded to its code. A sign may have several codes.
CURRENCIES: Mapping[str, frozenset[str]] = {
    "€": frozenset({"eur"}),
    "euro": frozenset({"eur"}),
    "euros": frozenset({"eur"}),
    "£": frozenset({"gbp"}),
    "pound": frozenset({"gbp"}),
    "pounds": frozenset({"gbp"}),
    "$": frozenset({"usd", "cad", "aud", "nzd", "mxn", "sgd", "hkd"}),
    "us$": frozenset({"usd"}),
    "dollar": frozenset({"usd", "cad", "aud"}),
    "dollars": frozenset({"usd", "cad", "aud"}),
    "¥": frozenset({"jpy", "cny"}),
    "円": frozenset({"jpy"}),
    "元": frozenset({"cny"}),
    "fr": frozenset({"chf"}),
    "sfr": frozenset({"chf"}),
    "franken": frozenset({"chf"}),
    "kr": frozenset({"sek", "nok", "dkk"}),
    "zł": frozenset({"pln"}),
    "zl": frozenset({"pln"}),
    "kc": frozenset({"czk"}),
    "ft": frozenset({"huf"}),
    "₺": frozenset({"try"}),
    "₹": frozenset({"inr"}),
    "r$": frozenset({"brl"}),
    **{
        code: frozenset({code})
        for code in [
            "eur",
            "gbp",
            "usd",
            "chf",
            "jpy",
            "cny",
            "sek",
            "nok",
            "dkk",
            "pln",
            "czk",
            "huf",
            "ron",
            "bgn",
            "try",
            "inr",
            "brl",
            "cad",
            "aud",
            "nzd",
            "mxn",
        ]
    },
}

#: What may stand beside a number without a space, folded: units of measure, "x" and "no".
UNITS = frozenset(
    [
        "x",
        "mal",
        "fois",
        "kg",
        "g",
        "mg",
        "t",
        "lb",
        "lbs",
        "oz",
        "l",
        "ml",
        "cl",
        "dl",
        "m",
        "mm",
        "cm",
        "km",
        "ft",
        "in",
        "pcs",
        "pc",
        "st",
        "stk",
        "stuck",
        "pz",
        "ud",
        "uds",
        "szt",
        "kwh",
        "wh",
        "w",
        "kw",
        "v",
        "a",
        "mah",
        "gb",
        "mb",
        "tb",
        "hz",
        "h",
        "min",
        "s",
        "sec",
        "std",
        "hr",
        "hrs",
        "c",
        "f",
        "k",
        "no",
        "nr",
        "vol",
        "ct",
        "px",
        "dpi",
        "pt",
        "eur",
        "euro",
        "gbp",
        "usd",
        "chf",
        "kr",
        "zl",
    ]
)

#: The names of fields: each row has the words of one thing, in the languages above. The first stands for the row.
_NAMES = """
total|grand total|amount due|total amount|balance due|summe|gesamt|gesamtbetrag|endbetrag|zu zahlen|total ttc|montant total|net a payer|importe total|totale|importo totale|totaal|totaalbedrag|te betalen|sum
net|subtotal|sub total|net amount|netto|zwischensumme|nettobetrag|total ht|sous total|montant ht|base imponible|imponibile|subtotale|subtotaal|nettobedrag
tax|vat|sales tax|vat amount|mwst|ust|umsatzsteuer|mehrwertsteuer|steuer|tva|iva|imposta|btw|gst
date|issue date|invoice date|bill date|datum|rechnungsdatum|belegdatum|fecha|data|date de facture|factuurdatum|data fattura|fecha de factura
due|due date|payable by|pay by|payment due|fallig|fallig am|zahlbar bis|falligkeit|echeance|date limite|vencimiento|scadenza|vervaldatum|te betalen voor
time|uhrzeit|zeit|heure|hora|ora|tijd
born|date of birth|birth date|birthday|dob|geburtsdatum|geboren|date de naissance|fecha de nacimiento|data di nascita|geboortedatum
issued|issued on|date of issue|ausgestellt|ausgestellt am|ausstellungsdatum|delivre le|expedido|rilasciato|afgegeven
signed|signed on|date signed|unterschrieben am|date|datum|fecha|data
phone|tel|telephone|phone number|mobile|telefon|telefonnummer|handy|telefono|telefoon|mobil|portable|movil|cellulare
mail|e mail|email|email address|courriel|correo|posta elettronica|mel
address|anschrift|adresse|direccion|indirizzo|adres|residence|wohnort
iban|bank account|account number|kontonummer|compte|cuenta|conto|rekening
bic|swift
name|full name|person|applicant|nom|nombre|nome|naam|antragsteller
customer|client|buyer|bill to|kunde|cliente|klant|rechnung an|facture a
seller|vendor|merchant|supplier|from|sender|absender|expediteur|remitente|mittente|afzender|verkaufer|lieferant
recipient|ship to|to|deliver to|empfanger|destinataire|destinatario|geadresseerde|ontvanger|an
number|invoice number|invoice no|invoice|bill number|document number|record number|receipt no|rechnung nr|rechnungsnummer|rechnung|beleg nr|facture no|facture n|facture|numero|factura|factura n|fattura n|fattura|factuurnr|factuurnummer|factuur
reference|payment reference|order reference|case number|ref|referenz|aktenzeichen|referencia|riferimento|kenmerk|betreff
order|order number|order no|your order|bestellung|bestellnummer|commande|pedido|ordine|bestelling
quantity|qty|count|copies|pieces|menge|anzahl|stuck|stk|qte|quantite|cantidad|cant|quantita|q ta|aantal
description|item|product|article|text|dish|bezeichnung|beschreibung|artikel|produkt|designation|descripcion|descrizione|omschrijving|articulo|articolo
price|unit price|preis|einzelpreis|stuckpreis|prix|prix unitaire|precio|precio unitario|prezzo|prezzo unitario|prijs|stukprijs
amount|line total|betrag|montant|importe|importo|bedrag|total|summe|gesamt|total ttc|totale|totaal
weight|weight kg|gewicht|poids|peso
tracking|tracking number|tracking no|sendungsnr|sendungsnummer|no de suivi|n de suivi|numero de suivi|n o de envio|n spedizione|zendingnr
shipped|shipped on|ship date|date|datum|fecha|data|versanddatum
cash|cash paid|paid|tendered|bar gegeben|bar|gegeben|especes|efectivo|contanti|contant
change|change due|ruckgeld|rendu|cambio|resto|wisselgeld
rate|tax rate|vat rate|steuersatz|taux|tipo|aliquota|tarief
fee|total|gebuhr|frais|summe|tasa|totale|totaal|kosten
"""


def _names() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for row in _NAMES.strip().splitlines():
        words = row.split("|")
        for word in words:
            found.setdefault(word.replace(" ", ""), set()).update(each.replace(" ", "") for each in words)
    return {name: frozenset(words) for name, words in found.items()}


#: A field's name without spaces, to all names of the same thing.
NAMES: Mapping[str, frozenset[str]] = _names()
