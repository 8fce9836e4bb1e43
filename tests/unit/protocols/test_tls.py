"""Certificates: what is refused before anything starts, and what happens when their files change."""

from __future__ import annotations

import logging
import os
import ssl
import subprocess
from pathlib import Path

import msgspec
import pytest

from tests.certificates import Authority
from trygon.errors import InstanceError
from trygon.protocols.http.tls import Certificates, TlsFiles, make_context


class Time:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_good_pair_is_taken_and_only_new_protocols_are_spoken(authority: Authority) -> None:
    context = make_context(authority.write())

    assert ssl.TLSVersion.TLSv1_2 == context.minimum_version
    assert ssl.CERT_NONE == context.verify_mode


def test_client_certificates_are_required_when_their_authority_is_named(authority: Authority) -> None:
    files = msgspec.structs.replace(authority.write(), ca_certs=str(authority.ca_certs))

    assert ssl.CERT_REQUIRED == make_context(files).verify_mode


@pytest.mark.parametrize("option", ["keyfile", "certfile", "ca_certs"])
def test_a_missing_file_is_told_with_its_option(authority: Authority, option: str) -> None:
    files = msgspec.structs.replace(authority.write(), **{option: str(authority.folder / "missing.pem")})

    with pytest.raises(InstanceError, match=rf"ssl_{option} '.*missing.pem' cannot be read: No such file"):
        make_context(files)


def test_a_folder_is_no_certificate(authority: Authority) -> None:
    files = msgspec.structs.replace(authority.write(), certfile=str(authority.folder))

    with pytest.raises(InstanceError, match=r"ssl_certfile .* cannot be read: Is a directory"):
        make_context(files)


def test_a_key_of_another_certificate_is_told(authority: Authority) -> None:
    other = authority.write("other.pem", "other-cert.pem")
    files = msgspec.structs.replace(authority.write(), keyfile=other.keyfile)

    with pytest.raises(InstanceError, match="does not belong to the certificate"):
        make_context(files)


@pytest.mark.parametrize("option", ["keyfile", "certfile", "ca_certs"])
@pytest.mark.parametrize(
    "text", ["", "nonsense\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_with_something_else_in_it_is_told(authority: Authority, option: str, text: str) -> None:
    (authority.folder / "bad.pem").write_text(text)
    files = msgspec.structs.replace(authority.write(), **{option: str(authority.folder / "bad.pem")})

    with pytest.raises(InstanceError, match=rf"ssl_{option} '.*bad.pem'"):
        make_context(files)


@pytest.mark.tool("openssl")
def test_an_encrypted_key_wants_its_password_and_never_asks_at_the_terminal(authority: Authority) -> None:
    files = authority.write()
    locked = str(authority.folder / "locked.pem")
    command = ["openssl", "pkey", "-in", files.keyfile, "-out", locked, "-aes256", "-passout", "pass:sesame"]
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    files = msgspec.structs.replace(files, keyfile=locked)

    with pytest.raises(InstanceError, match="is encrypted, and ssl_keyfile_password is missing"):
        make_context(files)
    with pytest.raises(InstanceError, match="is encrypted, and ssl_keyfile_password is wrong") as caught:
        make_context(msgspec.structs.replace(files, keyfile_password="mellon"))
    assert "mellon" not in str(caught.value)
    make_context(msgspec.structs.replace(files, keyfile_password="sesame"))


def test_changed_files_are_loaded_for_the_next_connection_a_second_later(authority: Authority) -> None:
    time = Time()
    certificates = Certificates(authority.write(), time)
    first = certificates.context()
    authority.write()

    time.now += 0.5
    soon = certificates.context()
    time.now += 0.6
    later = certificates.context()
    time.now += 5.0

    assert first is soon
    assert first is not later
    assert later is certificates.context()


def test_a_broken_new_certificate_keeps_the_old_one_and_is_told_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    time = Time()
    files = authority.write()
    certificates = Certificates(files, time)
    first = certificates.context()
    Path(files.certfile).write_text("half a certif")

    with caplog.at_level(logging.INFO, "trygon.http"):
        for _ in range(3):
            time.now += 2.0
            assert first is certificates.context()
        os.remove(files.keyfile)
        time.now += 2.0
        assert first is certificates.context()
        authority.write()
        time.now += 2.0
        assert first is not certificates.context()

    told = [record.getMessage() for record in caplog.records]
    assert 3 == len(told)
    assert "the one before serves on" in told[0]
    assert "cert.pem" in told[0]
    assert "key.pem" in told[1]
    assert "new certificate" in told[2]


def test_options_of_an_instance_name_the_files() -> None:
    options = {"ssl_keyfile": "/k", "ssl_certfile": "/c", "ssl_ca_certs": "/a", "ssl_keyfile_password": "p"}

    assert TlsFiles.of({"root_path": ""}) is None
    assert TlsFiles(keyfile="/k", certfile="/c", ca_certs="/a", keyfile_password="p") == TlsFiles.of(options)
