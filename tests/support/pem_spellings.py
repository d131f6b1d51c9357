"""Spellings of PEM as they occur in files, environment variables and forms."""

from collections.abc import Callable, Mapping

Spelling = Callable[[str], str]


def _without_line_ends(pem: str) -> str:
    """BEGIN and END on their own lines, and the base64 in one line between them."""
    begin, *lines, end = pem.strip().splitlines()
    return "\n".join((begin, "".join(lines), end))


SPELLINGS: Mapping[str, Spelling] = {
    "as written": str,
    "CRLF": lambda pem: pem.replace("\n", "\r\n"),
    "CR": lambda pem: pem.replace("\n", "\r"),
    "doubled line ends": lambda pem: pem.replace("\n", "\r\r\n"),
    "spaces for line ends": lambda pem: pem.replace("\n", " "),
    "line ends for spaces": lambda pem: pem.replace(" ", "\n"),
    "no line ends": lambda pem: pem.replace("\n", ""),
    "no white space": lambda pem: "".join(pem.split()),
    "literal \\n": lambda pem: pem.replace("\n", "\\n"),
    "literal \\r\\n": lambda pem: pem.replace("\n", "\\r\\n"),
    "literal \\\\n": lambda pem: pem.replace("\n", "\\\\n"),
    "escaped slashes": lambda pem: pem.replace("/", "\\/").replace("\n", "\\n"),
    "one line of base64": _without_line_ends,
    "lines of 76": lambda pem: pem.replace("\n", "", 3),
    "indented": lambda pem: "".join(f"    {line}\n" for line in pem.splitlines()),
    "indented by tabs": lambda pem: "".join(f"\t{line}\n" for line in pem.splitlines()),
    "trailing spaces": lambda pem: "".join(f"{line}  \n" for line in pem.splitlines()),
    "no-break spaces": lambda pem: pem.replace("\n", "\u00a0\n"),
    "byte order mark": lambda pem: f"\ufeff{pem}",
    "zero-width spaces": lambda pem: pem.replace("\n", "\u200b\n"),
    "double quotes": lambda pem: f'"{pem}"',
    "single quotes": lambda pem: f"'{pem.strip()}'\n",
    "no final line end": str.strip,
    "text around": lambda pem: f"Bag Attributes\n    localKeyID: 01 02\nsubject=UID = x\nissuer=CN = y\n{pem}\nend\n",
    "no padding": lambda pem: pem.replace("=\n-", "\n-").replace("=\n-", "\n-"),
}
