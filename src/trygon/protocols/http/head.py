"""The head of a request, judged as RFC 9112 and RFC 9110 say: bytes in, `RequestHead` or `ProtocolError` out.

Pure. Nothing that two readers could understand differently gets through: no bare LF, no folded line,
no repeated length, no length beside a transfer coding, no control byte in a value.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from typing import Final
from urllib.parse import unquote_to_bytes

from trygon.protocols.http.errors import ProtocolError
from trygon.protocols.http.settings import HttpSettings

__all__ = ["FIELD_LINES", "HeadParser", "HeaderBlock", "RequestHead"]

TOKEN: Final = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"
#: Zero or more well-formed field lines. Possessive, so a hostile block costs linear time.
FIELD_LINES: Final = re.compile(rb"(?:[" + TOKEN + rb"]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+").fullmatch

_is_token = re.compile(rb"[" + TOKEN + rb"]+").fullmatch

#: A path may hold what RFC 3986 allows and what browsers leave unescaped (| [ ] { } ^); a query any
#: visible byte but "#". Never "\", which some readers take for "/".
_PATH = rb"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/|\[\]{}^]*+"
_QUERY = rb"[!\"$-~]*+"
_match_request_line = re.compile(
    rb"([" + TOKEN + rb"]{1,32}) (" + _PATH + rb")(?:\?(" + _QUERY + rb"))? HTTP/1\.([01])"
).fullmatch
_match_absolute = re.compile(
    rb"https?://([^/?#@\\]*+)(" + _PATH + rb")?(?:\?(" + _QUERY + rb"))?", re.IGNORECASE
).fullmatch
_is_version = re.compile(rb"HTTP/[0-9]\.[0-9]").fullmatch
_is_target = re.compile(rb"[\x21-\x7e]+").fullmatch
_bad_escape = re.compile(rb"%(?![0-9A-Fa-f]{2})").search
_is_host = re.compile(
    rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+(?::[0-9]{0,5})?"
    rb"|\[(?:[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+)\](?::[0-9]{0,5})?"
).fullmatch
_is_digits = re.compile(rb"[0-9]+").fullmatch
_is_request_id = re.compile(rb"[\x21-\x7e]{1,128}").fullmatch
_is_seconds = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?").fullmatch
_is_visible = re.compile(rb"[\x20-\x7e]{1,512}").fullmatch

#: 2**63 - 1 has 19 digits; more cannot be meant.
_MAX_LENGTH_DIGITS = 18

_HOST, _LENGTH, _CODING, _CONNECTION, _EXPECT, _UPGRADE, _REQUEST_ID, _TIMEOUT = range(8)
_MODEL, _SESSION, _WS_KEY, _WS_VERSION = range(8, 12)

_SPECIAL = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"expect": _EXPECT,
    b"upgrade": _UPGRADE,
    b"x-request-id": _REQUEST_ID,
    b"x-request-timeout-seconds": _TIMEOUT,
    b"serve_multiplexed_model_id": _MODEL,
    b"serve-multiplexed-model-id": _MODEL,
    b"sec-websocket-key": _WS_KEY,
    b"sec-websocket-version": _WS_VERSION,
}

CHUNKED: Final = -1


class HeaderBlock:
    """The header lines of one request and what they mean; shared by requests that repeat them, never changed."""

    __slots__ = (
        "coding",
        "connection",
        "content_length",
        "expects_continue",
        "fields",
        "host",
        "model_id",
        "num_codings",
        "num_hosts",
        "num_keys",
        "num_lengths",
        "request_id",
        "session_id",
        "timeout_s",
        "upgrade",
        "ws_key",
        "ws_version",
    )

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        self.fields = fields
        self.num_hosts = 0
        self.host = b""
        self.num_lengths = 0
        #: -1 is chunked.
        self.content_length = 0
        self.num_codings = 0
        self.coding = b""
        self.connection: frozenset[bytes] = frozenset()
        self.expects_continue = False
        self.upgrade: frozenset[bytes] = frozenset()
        #: Empty unless the client sent a usable one.
        self.request_id = ""
        self.timeout_s = 0.0
        self.model_id = ""
        self.session_id = ""
        self.num_keys = 0
        self.ws_key = b""
        self.ws_version: bytes | None = None


class RequestHead:
    """One request up to its body: checked, decoded, ready to be routed."""

    __slots__ = (
        "block",
        "expects_continue",
        "fields",
        "has_body",
        "http_version",
        "is_10",
        "is_head",
        "is_own",
        "is_websocket",
        "keep_alive",
        "length",
        "method",
        "path",
        "query",
        "raw_path",
        "request_id",
    )

    def __init__(
        self, method: str, raw_path: bytes, path: str, query: bytes, is_10: bool, block: HeaderBlock
    ) -> None:
        self.method = method
        self.raw_path = raw_path
        self.path = path
        self.query = query
        self.block = block
        self.fields = block.fields
        self.is_10 = is_10
        self.http_version = "1.0" if is_10 else "1.1"
        self.is_head = method == "HEAD"
        #: Under "/-/", or "*": answered here, never by an application.
        self.is_own = path.startswith("/-/") or path == "*"
        #: Bytes of the body; -1 is chunked.
        self.length = block.content_length
        self.has_body = block.content_length != 0
        if is_10:
            self.keep_alive = b"keep-alive" in block.connection and b"close" not in block.connection
        else:
            self.keep_alive = b"close" not in block.connection
        #: An HTTP/1.0 client cannot understand 100.
        self.expects_continue = block.expects_continue and not is_10
        #: A handshake; `HeadParser` has checked that it is a valid one.
        self.is_websocket = b"websocket" in block.upgrade and not is_10
        self.request_id = block.request_id


def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset(part.strip(b" \t") for part in value.lower().split(b","))


def _note_label(block: HeaderBlock, kind: int, value: bytes) -> None:
    """Take a line that frames nothing. An unusable label is ignored, not refused; what is echoed must be clean."""
    if kind == _REQUEST_ID:
        block.request_id = value.decode("ascii") if _is_request_id(value) else ""
    elif kind == _TIMEOUT:
        block.timeout_s = float(value) if _is_seconds(value) else 0.0
    elif kind == _MODEL:
        block.model_id = value.decode("ascii") if _is_visible(value) else ""
    elif kind == _SESSION:
        block.session_id = value.decode("ascii") if _is_visible(value) else ""
    elif kind == _WS_KEY:
        block.num_keys += 1
        block.ws_key = value
    else:
        # A repeated version is none that we speak.
        block.ws_version = value if block.ws_version is None else b""


class HeadParser:
    """Judges heads under the limits of one server; holds no state of any connection."""

    __slots__ = ("_max_headers", "_max_target", "_special")

    def __init__(self, settings: HttpSettings) -> None:
        self._max_headers = settings.max_headers
        self._max_target = settings.max_target_bytes
        session = settings.session_id_header.lower().encode("ascii")
        self._special = _SPECIAL | {
            session: _SESSION,
            session.replace(b"_", b"-"): _SESSION,
            session.replace(b"-", b"_"): _SESSION,
        }

    def parse(self, line: bytes, lines: bytes) -> RequestHead:
        """Judge a request line (without CR LF) and its field lines (each with CR LF)."""
        return self.parse_line(line, self.parse_block(lines))

    def parse_block(self, lines: bytes) -> HeaderBlock:
        """Judge the field lines alone, each ending in CR LF."""
        if FIELD_LINES(lines) is None:
            raise ProtocolError(400, _explain_lines(lines))
        parts = lines.split(b"\r\n")
        if len(parts) - 1 > self._max_headers:
            raise ProtocolError(431, "too many header lines")
        parts.pop()
        fields: list[tuple[bytes, bytes]] = []
        append = fields.append
        special = self._special
        found = []
        for part in parts:
            name, _, value = part.partition(b":")
            name = name.lower()
            field = (name, value.strip(b" \t"))
            append(field)
            if name in special:
                found.append(field)
        block = HeaderBlock(fields)
        for name, value in found:
            self._note(block, special[name], value)
        _check_framing(block)
        return block

    def _note(self, block: HeaderBlock, kind: int, value: bytes) -> None:
        """Take what a special line says; those that frame the message first."""
        if kind == _HOST:
            block.num_hosts += 1
            block.host = value
        elif kind == _CONNECTION:
            block.connection |= _tokens(value)
        elif kind == _LENGTH:
            block.num_lengths += 1
            if _is_digits(value) is None:
                raise ProtocolError(400, "invalid Content-Length")
            if len(value) > _MAX_LENGTH_DIGITS:
                raise ProtocolError(413, "body too large")
            block.content_length = int(value)
        elif kind == _CODING:
            block.num_codings += 1
            block.coding = value.lower()
        elif kind == _EXPECT:
            if value.lower() != b"100-continue":
                raise ProtocolError(417, "unsupported expectation")
            block.expects_continue = True
        elif kind == _UPGRADE:
            block.upgrade |= _tokens(value)
        else:
            _note_label(block, kind, value)

    def parse_line(self, line: bytes, block: HeaderBlock) -> RequestHead:
        """Judge a request line (without CR LF) together with its header block."""
        match = _match_request_line(line)
        if match is None:
            return self._unusual(line, block)
        method, raw_path, query, minor = match.groups()
        if len(line) > self._max_target and len(raw_path) + len(query or b"") > self._max_target:
            raise ProtocolError(414, "request target too long")
        if b"%" in raw_path:
            path = _decode_path(raw_path)
        else:
            path = raw_path.decode("ascii")
        if method == b"CONNECT":
            raise ProtocolError(400, "invalid target for CONNECT")
        head = RequestHead(method.decode("ascii"), raw_path, path, query or b"", minor == b"0", block)
        _check_head(head, block)
        return head

    def _unusual(self, line: bytes, block: HeaderBlock) -> RequestHead:
        """Judge a request line that is not plain origin-form: another form, or an error."""
        method, target, is_10 = self._split_line(line)
        if method == b"CONNECT":
            if _is_host(target) is None or b":" not in target or target.endswith(b":"):
                raise ProtocolError(400, "invalid target for CONNECT")
            raise ProtocolError(501, "CONNECT is not implemented")
        if target == b"*":
            if method != b"OPTIONS":
                raise ProtocolError(400, "invalid request target")
            head = RequestHead("OPTIONS", b"*", "*", b"", is_10, block)
            _check_head(head, block)
            return head
        match = _match_absolute(target)
        if match is None:
            raise ProtocolError(400, "invalid request target")
        authority, raw_path, query = match.groups()
        if _is_host(authority) is None:
            raise ProtocolError(400, "invalid authority in request target")
        raw_path = raw_path or b"/"
        head = RequestHead(
            method.decode("ascii"), raw_path, _decode_path(raw_path), query or b"", is_10, block
        )
        _check_head(head, block)
        # RFC 9112, 3.2.2: the authority of an absolute target stands for the Host line.
        fields = [field for field in block.fields if field[0] != b"host"]
        head.fields = [(b"host", authority), *fields]
        return head

    def _split_line(self, line: bytes) -> tuple[bytes, bytes, bool]:
        """Return method, target, and whether the version is 1.0."""
        parts = line.split(b" ")
        if len(parts) != 3 or not all(parts):
            raise ProtocolError(400, "malformed request line")
        method, target, version = parts
        if _is_token(method) is None:
            raise ProtocolError(400, "invalid method")
        if _is_version(version) is None:
            raise ProtocolError(400, "invalid HTTP version")
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise ProtocolError(505, "HTTP version not supported")
        if len(target) > self._max_target:
            raise ProtocolError(414, "request target too long")
        if len(method) > 32:
            raise ProtocolError(501, "method not implemented")
        if _is_target(target) is None:
            raise ProtocolError(400, "invalid request target")
        return method, target, version == b"HTTP/1.0"


def _check_framing(block: HeaderBlock) -> None:
    if block.num_codings:
        if block.num_lengths:
            raise ProtocolError(400, "Content-Length beside Transfer-Encoding")
        if block.num_codings > 1:
            raise ProtocolError(400, "repeated Transfer-Encoding")
        if block.coding != b"chunked":
            if block.coding.count(b"chunked") > 1 or not block.coding:
                raise ProtocolError(400, "invalid Transfer-Encoding")
            raise ProtocolError(501, "transfer coding not implemented")
        block.content_length = CHUNKED
    elif block.num_lengths > 1:
        raise ProtocolError(400, "repeated Content-Length")
    if block.num_hosts > 1:
        raise ProtocolError(400, "repeated Host")
    if block.num_hosts and _is_host(block.host) is None:
        raise ProtocolError(400, "invalid Host")


def _check_head(head: RequestHead, block: HeaderBlock) -> None:
    if head.is_10:
        if block.num_codings:
            raise ProtocolError(400, "Transfer-Encoding in HTTP/1.0")
    elif not block.num_hosts:
        raise ProtocolError(400, "missing Host")
    if head.is_websocket:
        _check_handshake(head, block)


def _check_handshake(head: RequestHead, block: HeaderBlock) -> None:
    """RFC 6455, 4.2.1."""
    if head.method != "GET":
        raise ProtocolError(400, "a websocket handshake must be a GET")
    if b"upgrade" not in block.connection:
        raise ProtocolError(400, "a websocket handshake needs Connection: Upgrade")
    if block.ws_version != b"13":
        raise ProtocolError(426, "only websocket version 13 is supported", b"sec-websocket-version: 13\r\n")
    if head.has_body:
        raise ProtocolError(400, "a websocket handshake has no body")
    try:
        is_key = (
            block.num_keys == 1
            and len(block.ws_key) == 24
            and len(b64decode(block.ws_key, validate=True)) == 16
        )
    except Base64Error:
        is_key = False
    if not is_key:
        raise ProtocolError(400, "invalid Sec-WebSocket-Key")


def _decode_path(raw_path: bytes) -> str:
    if _bad_escape(raw_path) is not None:
        raise ProtocolError(400, "invalid percent escape in path")
    decoded = unquote_to_bytes(raw_path)
    if b"\0" in decoded:
        raise ProtocolError(400, "NUL in path")
    try:
        return decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError(400, "path is not UTF-8") from None


def _explain_lines(lines: bytes) -> str:
    """Say what is wrong with a block that `FIELD_LINES` refused."""
    for line in lines.split(b"\r\n")[:-1]:
        if b"\n" in line or b"\r" in line:
            return "bare CR or LF in header"
        if line[:1] in (b" ", b"\t"):
            return "folded header line"
        name, colon, _ = line.partition(b":")
        if not colon:
            return "header line without colon"
        if _is_token(name) is None:
            return "invalid header name"
        if FIELD_LINES(line + b"\r\n") is None:
            return "invalid byte in header value"
    return "malformed header"
