"""What the pages of bench.evidence say: names, goods and labels in six languages, and how each writes numbers and dates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from numpy.random import Generator

_MONTHS = {
    "en": "January February March April May June July August September October November December",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "nl": "januari februari maart april mei juni juli augustus september oktober november december",
}
#: Date patterns of each language: d, m, y as numbers without and D, M, Y with zeros (Y has two digits), B a month's name, b its first three letters.
_DATES = {
    "en": ("D/M/y", "d B y", "B d, y", "b d, y", "y-M-D"),
    "de": ("D.M.y", "d.m.y", "d. B y", "D.M.Y", "y-M-D"),
    "fr": ("D/M/y", "d B y", "D/M/Y", "D.M.y"),
    "es": ("D/M/y", "d de B de y", "D-M-y", "d/m/y"),
    "it": ("D/M/y", "d B y", "D.M.y", "D-M-Y"),
    "nl": ("D-M-y", "d B y", "d-m-y", "D/M/y"),
}
#: Thousands and decimal signs.
_NUMBERS = {
    "en": ((",", "."), (",", ".")),
    "de": ((".", ","), ("'", ".")),
    "fr": ((" ", ","), ("", ",")),
    "es": ((".", ","), ("", ",")),
    "it": ((".", ","), ("'", ",")),
    "nl": ((".", ","), ("", ",")),
}
_SIGNS = {"en": ("£{}", "${}", "{}"), "de": ("{} €", "EUR {}", "{}"), "fr": ("{} €", "{}€", "{}"), "nl": ("€ {}", "{}", "€ {}")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """The words of one language."""

    code: str
    names: str  #: full names, separated by semicolons, as are the next ones
    shops: str
    streets: str
    towns: str
    goods: str
    long: str  #: descriptions of several lines
    labels: Mapping[str, str]  #: what stands on the page for a field


def _labels(text: str) -> dict[str, str]:
    return dict(part.split("=") for part in text.split(";"))


LANGUAGES = (
    Language(
        code="en",
        names="Harriet Osborne;Tobias Lindgren;Maeve O'Connell;Desmond Achebe;Priscilla Whitcombe;Alistair Boyd",
        shops="Marlow & Finch;Calder Vale Instruments;Harbour Light Books;Quayside Garden Supply;Pembrook Tools Ltd",
        streets="41 Quayside Row;6 Tannery Yard;118 Fore Street;27 Millbrook Lane",
        towns="Port Ellery XE3 8QT;Hexworth HX9 4TD;Ashcombe AC4 7LN;Norwick NK2 6PB",
        goods="Sourdough loaf;Mature cheddar 400g;Olive oil 500ml;Garden shears;Desk lamp brass;Wool blanket;Copper kettle;Candle holder",
        long="Adjustable aluminium workbench with replaceable rubber feet;Waterproof rucksack with reinforced shoulder straps and rain cover",
        labels=_labels(
            "number=Invoice no.;date=Date;due=Due date;time=Time;net=Subtotal;tax=VAT;total=Total;name=Name;born=Date of birth;"
            "phone=Phone;email=E-mail;address=Address;iban=IBAN;customer=Customer;quantity=Qty;description=Description;price=Price;"
            "weight=Weight;tracking=Tracking no.;from=From;to=Ship to;issued=Issued;reference=Reference;cash=Cash paid;change=Change"
        ),
    ),
    Language(
        code="de",
        names="Jörg Käfermann;Annika Brandt;Wolfgang Übelhör;Sabine Grünwald;Matthias Weiß;Friederike Schönfeld",
        shops="Gasthaus Kupferhirsch;Lindqvist Optik GmbH;Bäckerei Sonnenschein;Möbelhaus Altendorf;Buchhandlung Seitenweise",
        streets="Mühlgasse 12;Hafenstraße 88;Werftgasse 17;Am Birkenhügel 3",
        towns="00417 Grünfelden;00241 Brückstedt;00231 Altenkirch;00118 Königsau",
        goods="Kürbissuppe;Zwiebelrostbraten;Käsespätzle;Weißbier 0,5l;Schreibtischlampe;Gartenschere;Wolldecke;Kerzenständer",
        long="Höhenverstellbare Werkbank mit austauschbaren Gummifüßen;Wasserdichter Wanderrucksack mit verstärkten Schultergurten",
        labels=_labels(
            "number=Rechnung Nr.;date=Datum;due=Fällig am;time=Uhrzeit;net=Netto;tax=MwSt;total=Summe;name=Name;born=Geburtsdatum;"
            "phone=Telefon;email=E-Mail;address=Anschrift;iban=IBAN;customer=Kunde;quantity=Menge;description=Bezeichnung;price=Preis;"
            "weight=Gewicht;tracking=Sendungsnr.;from=Absender;to=Empfänger;issued=Ausgestellt;reference=Referenz;cash=Bar gegeben;"
            "change=Rückgeld"
        ),
    ),
    Language(
        code="fr",
        names="Élodie Marchetaux;François Lemaître;Chloé Bérenger;Théo Dampierre;Geneviève Rochas;Noël Aubertin",
        shops="Atelier du Pont-Neuf;Boulangerie Fournier;Librairie des Tilleuls;Quincaillerie Moreau;La Fromagerie",
        streets="27 bis, rue des Tilleuls;4 place du Marché;153 avenue Gambier;9 quai des Brumes",
        towns="99310 Saint-Orval;99120 Montclair;99870 Beaurivage;99045 Vallombre",
        goods="Crème brûlée;Soupe à l'oignon;Fromage de chèvre;Pain au levain;Lampe de bureau;Sécateur;Couverture laine;Bougeoir",
        long="Établi réglable en aluminium avec pieds en caoutchouc;Sac à dos imperméable avec bretelles renforcées et housse de pluie",
        labels=_labels(
            "number=Facture n°;date=Date;due=Échéance;time=Heure;net=Total HT;tax=TVA;total=Total TTC;name=Nom;born=Date de naissance;"
            "phone=Téléphone;email=Courriel;address=Adresse;iban=IBAN;customer=Client;quantity=Qté;description=Désignation;price=Prix;"
            "weight=Poids;tracking=N° de suivi;from=Expéditeur;to=Destinataire;issued=Délivré le;reference=Référence;cash=Espèces;"
            "change=Rendu"
        ),
    ),
    Language(
        code="es",
        names="Begoña Ibáñez;Íñigo Zubiría;Martín Peñalver;Lucía Carrascosa;Ramón Quiñones;Ángela Fuentes",
        shops="Panadería La Espiga;Ferretería Núñez;Librería del Puerto;Taberna El Olivo;Almacenes Cortés",
        streets="Calle Mayor 23;Avenida del Mar 107;Plaza Nueva 4;Paseo de los Tilos 61",
        towns="00231 Villanube;00418 Puerto Alto;00975 Montesol;00602 Riofrío",
        goods="Tortilla española;Queso manchego;Aceite de oliva;Jamón serrano;Lámpara de mesa;Tijeras de podar;Manta de lana;Candelabro",
        long="Banco de trabajo regulable con patas de goma reemplazables;Mochila impermeable con correas reforzadas y funda de lluvia",
        labels=_labels(
            "number=Factura n.º;date=Fecha;due=Vencimiento;time=Hora;net=Base imponible;tax=IVA;total=Total;name=Nombre;"
            "born=Fecha de nacimiento;phone=Teléfono;email=Correo;address=Dirección;iban=IBAN;customer=Cliente;quantity=Cant.;"
            "description=Descripción;price=Precio;weight=Peso;tracking=N.º de envío;from=Remitente;to=Destinatario;issued=Expedido;"
            "reference=Referencia;cash=Efectivo;change=Cambio"
        ),
    ),
    Language(
        code="it",
        names="Niccolò Bellandi;Chiara Venturini;Ettore Fumagalli;Beatrice Sartori;Giosuè Marchesi;Letizia Colombari",
        shops="Trattoria del Porto;Libreria Minerva;Ferramenta Galli;Panificio Rosselli;Bottega dell'Olio",
        streets="Via Garibaldi 45;Piazza del Duomo 8;Corso Italia 132;Vicolo Stretto 3",
        towns="00141 Montefiore;00287 Valdoro;00963 Pietralta;00510 Lagonuovo",
        goods="Risotto ai funghi;Pecorino romano;Olio d'oliva;Prosciutto crudo;Lampada da tavolo;Cesoie;Coperta di lana;Candeliere",
        long="Banco da lavoro regolabile con piedini in gomma;Zaino impermeabile con spallacci rinforzati e copertura antipioggia",
        labels=_labels(
            "number=Fattura n.;date=Data;due=Scadenza;time=Ora;net=Imponibile;tax=IVA;total=Totale;name=Nome;born=Data di nascita;"
            "phone=Telefono;email=E-mail;address=Indirizzo;iban=IBAN;customer=Cliente;quantity=Q.tà;description=Descrizione;"
            "price=Prezzo;weight=Peso;tracking=N. spedizione;from=Mittente;to=Destinatario;issued=Rilasciato;reference=Riferimento;"
            "cash=Contanti;change=Resto"
        ),
    ),
    Language(
        code="nl",
        names="Maarten Vermeulen;Saskia de Groot;Joël Hoekstra;Marijke van den Berg;Thijs Kuipers;Noor Wijnands",
        shops="Bakkerij de Korenaar;Boekhandel Zonnewijk;IJzerwaren Bosman;Eetcafé de Haven;Tuincentrum Groenoord",
        streets="Molenstraat 14;Havenkade 209;Kerkplein 7;Zonnebloemlaan 38",
        towns="0231 AB Lindewaard;0418 KM Zuidhaven;0975 TR Bergerveen;0602 XP Oosterdam",
        goods="Erwtensoep;Oude kaas 400 g;Appeltaart;Kroketten;Bureaulamp;Snoeischaar;Wollen deken;Kandelaar",
        long="Verstelbare werkbank met vervangbare rubberen voetjes;Waterdichte rugzak met versterkte schouderbanden en regenhoes",
        labels=_labels(
            "number=Factuurnr.;date=Datum;due=Vervaldatum;time=Tijd;net=Subtotaal;tax=BTW;total=Totaal;name=Naam;born=Geboortedatum;"
            "phone=Telefoon;email=E-mail;address=Adres;iban=IBAN;customer=Klant;quantity=Aantal;description=Omschrijving;price=Prijs;"
            "weight=Gewicht;tracking=Zendingnr.;from=Afzender;to=Geadresseerde;issued=Afgegeven;reference=Kenmerk;cash=Contant;"
            "change=Wisselgeld"
        ),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """How one page writes numbers and dates."""

    language: str
    signs: tuple[str, str]  #: thousands, decimals
    money: str  #: with {} for the number
    date: str  #: see _DATES

    def number(self, value: Decimal) -> str:
        whole, _, part = f"{value:,f}".partition(".")
        return whole.replace(",", self.signs[0]) + (self.signs[1] + part if part else "")

    def amount(self, value: Decimal, *, sign: bool = True) -> str:
        return self.money.format(self.number(value)) if sign else self.number(value)

    def day(self, value: date) -> str:
        name = _MONTHS[self.language].split()[value.month - 1]
        parts: dict[str, str] = {
            "d": str(value.day),
            "m": str(value.month),
            "y": str(value.year),
            "D": f"{value.day:02}",
            "M": f"{value.month:02}",
            "Y": f"{value.year % 100:02}",
            "B": name,
            "b": name[:3],
        }
        words = [word if word == "de" else "".join(parts.get(letter, letter) for letter in word) for word in self.date.split()]
        return " ".join(words)


def manner(rng: Generator, language: str) -> Manner:
    pick: Callable[[tuple[str, ...]], str] = lambda options: options[int(rng.integers(len(options)))]  # noqa: E731
    signs = _NUMBERS[language][int(rng.integers(2))]
    return Manner(language=language, signs=signs, money=pick(_SIGNS.get(language, _SIGNS["fr"])), date=pick(_DATES[language]))
