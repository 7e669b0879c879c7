"""Audio is encrypted with AES-256-GCM, one random nonce an object, and bound to the chunk that it is.

An encrypted file is its head (8 bytes that name the format, 8 of the key's id, 12 of the nonce), the ciphertext, and 16
bytes of the tag over all of that and the chunk's names. Both directions take a block at a time, so memory stays small;
what was decrypted may be used only once the tag was right: until then it is in a file that nobody reads.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from vps_bridge.bucket.keys import ID_BYTES, SpoolKey, SpoolKeys
from vps_bridge.errors import StoreUnavailable

MAGIC = b"omi-aud1"
NONCE_BYTES, TAG_BYTES = 12, 16  # NIST SP 800-38D: 96 bits, at random for fewer than 2^32 objects of one key
HEAD_BYTES = len(MAGIC) + ID_BYTES + NONCE_BYTES
OVERHEAD_BYTES = HEAD_BYTES + TAG_BYTES
BLOCK_BYTES = 2**20


class KeyMissing(StoreUnavailable):
    """Audio was encrypted with a key that is not in the file of keys."""


class AudioDamaged(Exception):
    """What the bucket holds is not what was put there: changed, cut off, or another chunk's."""


@dataclass(frozen=True)
class ChunkNames:
    """What an encrypted chunk is bound to: it decrypts as this chunk and as no other."""

    ledger_id: str
    conversation_id: str
    chunk_id: str
    name: str
    """In the spool."""

    def encode(self) -> bytes:
        """Return it as bytes: JSON, in which no two different lists of names look alike."""
        return json.dumps(astuple(self), ensure_ascii=True).encode()


def encrypt(source: IO[bytes], target: IO[bytes], key: SpoolKey, names: ChunkNames) -> str:
    """Write a chunk encrypted; return the MD5 of what was written, in base64, as the header `Content-MD5` has it."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    head = MAGIC + key.key_id + nonce
    cipher = Cipher(AES(key.secret), GCM(nonce)).encryptor()
    cipher.authenticate_additional_data(head + names.encode())
    md5 = hashlib.md5(head, usedforsecurity=False)  # against damage on the way only; the tag is against people
    target.write(head)
    while block := source.read(BLOCK_BYTES):
        _put(target, cipher.update(block), md5)
    _put(target, cipher.finalize(), md5)
    _put(target, cipher.tag, md5)
    return b64encode(md5.digest()).decode()


def _put(target: IO[bytes], data: bytes, md5: hashlib._Hash) -> None:
    md5.update(data)
    target.write(data)


def decrypt(blocks: Iterable[bytes], target: IO[bytes], keys: SpoolKeys, names: ChunkNames) -> str:
    """Write the chunk that was encrypted, and return the sha256 of it.

    Raises:
        KeyMissing: the file of keys lacks the one it was encrypted with.
        AudioDamaged: it is no such chunk, or was changed; what is in `target` is worth nothing.
    """
    coming = iter(blocks)
    held = b""
    while len(held) < HEAD_BYTES:
        block = next(coming, None)
        if block is None:
            raise AudioDamaged("it is too short")
        held += block
    head, held = held[:HEAD_BYTES], held[HEAD_BYTES:]
    cipher = Cipher(AES(_find_key(head, keys).secret), GCM(head[-NONCE_BYTES:])).decryptor()
    cipher.authenticate_additional_data(head + names.encode())
    sha256 = hashlib.sha256()
    while True:
        audio = cipher.update(held[:-TAG_BYTES])
        sha256.update(audio)
        target.write(audio)
        held = held[-TAG_BYTES:]  # the last bytes that came may be the tag
        block = next(coming, None)
        if block is None:
            break
        held += block
    try:
        cipher.finalize_with_tag(held)
    except (InvalidTag, ValueError) as error:
        raise AudioDamaged("it was changed, or is another chunk's") from error
    return sha256.hexdigest()


def _find_key(head: bytes, keys: SpoolKeys) -> SpoolKey:
    if not head.startswith(MAGIC):
        raise AudioDamaged("it is nothing that this program encrypted")
    key_id = head[len(MAGIC) : len(MAGIC) + ID_BYTES]
    key = keys.find(key_id)
    if key is None:
        raise KeyMissing(
            f"audio in the bucket was encrypted with key {key_id.hex()}, which {keys.file} does not hold: "
            "add that key's line, from another bridge of this ledger or a copy of the file"
        )
    return key
