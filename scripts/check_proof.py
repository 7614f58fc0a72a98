"""Verifies what a Farebox server says of its ledger with nothing of Farebox's: PyJWT for the token,
cryptography for Ed25519, hashlib for the tree. Run by check-proof.sh, which fetches the files.

Every check is also made on altered input, where it must fail.
"""

import base64
import hashlib
import json
import pathlib
import sys

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def b64(text):
    return base64.b64decode(text, validate=True)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def token_claims(token, jwks):
    kid = jwt.get_unverified_header(token)["kid"]
    key = next(jwt.PyJWK(one) for one in jwks["keys"] if one["kid"] == kid)
    checked = {"verify_aud": False, "require": ["exp", "nbf", "iss", "jti", "sub"]}
    return jwt.decode(token, key.key, algorithms=["EdDSA"], options=checked)


def open_note(note, vkey):
    """Size and root of a C2SP signed note, once its signature is good."""
    name, key_hash, key = vkey.strip().split("+", 2)
    key = b64(key)
    assert key[0] == 1, "not an Ed25519 key"
    expected = sha256(name.encode(), b"\n", key)[:4]
    assert expected.hex() == key_hash, "the key's hash is another key's"
    text, below = note.split("\n\n", 1)
    signed = (text + "\n").encode()
    for line in below.splitlines():
        dash, signer, signature = line.split(" ")
        signature = b64(signature)
        if dash == "\u2014" and signer == name and signature[:4] == expected:
            Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], signed)
            origin, size, root = text.split("\n")[:3]
            assert origin == name, "another ledger's"
            return int(size), b64(root)
    raise AssertionError("not signed by this key")


def split(size):
    return 1 << ((size - 1).bit_length() - 1)


def root_of(leaf, index, size, path):
    """RFC 6962, 2.1.1, from the root down."""
    assert 0 <= index < size, "no such leaf"
    if size == 1:
        assert not path, "the path is too long"
        return leaf
    assert path, "the path is too short"
    left, below, last = split(size), path[:-1], path[-1]
    if index < left:
        return sha256(b"\1", root_of(leaf, index, left, below), last)
    return sha256(b"\1", last, root_of(leaf, index - left, size - left, below))


def roots_of(old, new, path, known):
    """RFC 6962, 2.1.2: the roots of the older and the newer tree that a proof leads to."""
    if old == new:
        assert len(path) == (0 if known else 1), "the path has the wrong length"
        root = known or path[0]
        return root, root
    assert path, "the path is too short"
    left, below, last = split(new), path[:-1], path[-1]
    if old <= left:
        before, after = roots_of(old, left, below, known)
        return before, sha256(b"\1", after, last)
    before, after = roots_of(old - left, new - left, below, None)
    return sha256(b"\1", last, before), sha256(b"\1", last, after)


def included(proof, size, root):
    leaf = sha256(b"\0", b64(proof["bytes"]))
    path = [b64(one) for one in proof["path"]]
    assert proof["size"] == size, "a proof of another size"
    assert root_of(leaf, proof["seq"] - 1, size, path) == root, "the entry is not in the tree"


def consistent(proof, old, new):
    (old_size, old_root), (new_size, new_root) = old, new
    path = [b64(one) for one in proof["path"]]
    known = old_root if old_size == new_size or old_size & (old_size - 1) == 0 else None
    before, after = roots_of(old_size, new_size, path, known)
    assert before == old_root, "the older tree is another one"
    assert after == new_root, "the newer tree is another one"


def must_fail(what, check, *args):
    try:
        check(*args)
    except (AssertionError, InvalidSignature, ValueError, IndexError, StopIteration,
            jwt.InvalidTokenError):
        return
    sys.exit(f"error: {what} was taken for good")


def flipped(text):
    """Base64 with one bit of its first byte changed."""
    raw = bytearray(b64(text))
    raw[0] ^= 1
    return base64.b64encode(bytes(raw)).decode()


def main(directory):
    text = lambda name: (pathlib.Path(directory) / name).read_text(encoding="utf-8")
    token, jwks, vkey = text("token").strip(), json.loads(text("jwks")), text("keys").split()[0]
    claims = token_claims(token, jwks)
    head, body, signature = token.split(".")
    spoilt = body[:-2] + ("AA" if body[-2:] != "AA" else "BB")
    must_fail("an altered token", token_claims, f"{head}.{spoilt}.{signature}", jwks)
    print(f"token of {claims['sub']}: signature and times are good")

    notes = [text("old"), text("new")]
    old, new = (open_note(note, vkey) for note in notes)
    must_fail("an altered size", open_note, notes[0].replace(f"\n{old[0]}\n", f"\n{old[0] + 1}\n"), vkey)
    root = base64.b64encode(old[1]).decode()
    must_fail("an altered root", open_note, notes[0].replace(root, flipped(root)), vkey)
    print(f"checkpoints over {old[0]} and {new[0]} entries: signatures are good")

    inclusion = json.loads(text("inclusion"))
    included(inclusion, *new)
    for name in ["bytes", "path"]:
        bad = json.loads(text("inclusion"))
        bad[name] = flipped(bad[name]) if name == "bytes" else [flipped(bad[name][0]), *bad[name][1:]]
        must_fail(f"an entry with altered {name}", included, bad, *new)
    print(f"entry {inclusion['seq']} is in the tree of {new[0]}")

    growth = json.loads(text("consistency"))
    consistent(growth, old, new)
    must_fail("another older tree", consistent, growth, (old[0], sha256(b"")), new)
    must_fail("another newer tree", consistent, growth, old, (new[0], sha256(b"")))
    print(f"the tree of {new[0]} begins with the tree of {old[0]}")


if __name__ == "__main__":
    main(sys.argv[1])
