#!/usr/bin/env python3
"""A second opinion on an audit bundle, by none of the product's code.

    verify_bundle.py BUNDLE FOUNDING_HASH

Checks that the bundle is one ledger from that founding on: each line canonical and in its place,
the RFC 6962 tree under the checkpoint's root, the checkpoint sealed by the audit key in force,
the founding signed by everyone on its roster, each proposal, verdict, withdrawal and freeze signed
(by ssh-keygen's word) by a key that the person had at that line, and each `begun` carried by as many
distinct persons as the rules in force asked for. Exits 0 and says so, or 1 and names the line.
"""
import base64, hashlib, json, os, subprocess, sys, tempfile
from datetime import datetime, timezone

class Wrong(Exception): pass
def must(condition, what):
    if not condition: raise Wrong(what)
def sha256(octets): return hashlib.sha256(octets).digest()
def root(leaves): # RFC 6962 section 2.1, of leaf hashes
    if len(leaves) < 2: return leaves[0] if leaves else sha256(b"")
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:]))
def run(command, stdin=b""):
    return not subprocess.run(command.split(" "), input=stdin, capture_output=True).returncode
def file(octets):
    handle, path = tempfile.mkstemp(dir=DIR)
    os.write(handle, octets)
    os.close(handle)
    return path
def signed_by(keys, namespace, text, signature):
    """The one of `keys` (type and base64) that made the SSH signature over the text."""
    lines = "\n".join(signature[at : at + 70] for at in range(0, len(signature), 70))
    sig = file(f"-----BEGIN SSH SIGNATURE-----\n{lines}\n-----END SSH SIGNATURE-----\n".encode())
    for key in keys:
        # Of a security key's signature ssh-keygen does not ask whether it was touched (flags, bit 0).
        flags = base64.b64decode(signature)[-5] if key.startswith("sk-") else 1
        allowed = file(f'who namespaces="{namespace}" {key}\n'.encode())
        if flags & 1 and run(f"ssh-keygen -Y verify -f {allowed} -I who -n {namespace} -s {sig}", text.encode()):
            return key
def fields(text):
    """The lines of a text behind its head, as (name, value)."""
    must(text.endswith("\n") and text.isascii(), "a text that is not whole")
    return [tuple(line.split(": ", 1)) for line in text.split("\n")[1:-1]]
def one(pairs, name):
    values = [value for key, value in pairs if key == name]
    must(len(values) == 1, f"a text with {len(values)} fields {name}")
    return values[0]

def read_roster(pairs):
    roster = {}
    for key, value in pairs:
        if key == "enrol":
            name, role = value.split(" ")
            roster[name] = role, []
        elif key == "key" and value.split(" ")[0] in roster:
            name, rest = value.split(" ", 1)
            roster[name][1].append(rest.removeprefix("verify-required "))
    return roster

def read_rules(pairs):
    rules = {}
    for kind, rule in (value.split(" ", 1) for key, value in pairs if key == "rule"):
        groups = [group.split(" ") for group in rule.split(" + ")]
        rules[kind] = [(int(persons), set(roles.split("|"))) for persons, roles in groups]
    must(all(sum(n for n, _ in rule) >= 2 for rule in rules.values()), "a rule below the floor")
    recovery = one(pairs, "recovery")
    return rules, None if recovery == "(none)" else [int(word) for word in recovery.split(" after ")]

def seconds(text):
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp())

class Ledger:
    def __init__(self, founding):
        self.founding, self.leaves, self.proposals, self.nonces = founding, [], {}, set()

    def is_prefix(self, checkpoint):
        size, digest = checkpoint if isinstance(checkpoint, tuple) else checkpoint.split(" ")
        must(int(size) <= len(self.leaves) and root(self.leaves[: int(size)]).hex() == digest,
             f"a checkpoint of {size} lines that is not this ledger's")
        return int(size)

    def by(self, person, namespace, text, signature):
        must(person in self.roster, f"{person} is not on the roster")
        key = signed_by(self.roster[person][1], namespace, text, signature)
        must(key, f"no signature by {person} for {namespace}")
        return key

    def founded(self, entry, _):
        text = entry["text"]
        must(not self.leaves and sha256(text.encode()).hex() == self.founding, "another founding")
        pairs = fields(text)
        self.roster, (self.rules, self.recovery) = read_roster(pairs), read_rules(pairs)
        self.audit = one(pairs, "audit-key").split(" ")
        must(set(entry["signatures"]) == set(self.roster), "not signed by everyone on the roster")
        for person, signature in entry["signatures"].items():
            self.by(person, "found@countersign", text, signature)

    def proposed(self, entry, at):
        text = entry["statement"]
        pairs = fields(text)
        must(one(pairs, "appliance") == self.founding, "a statement for another appliance")
        must(one(pairs, "nonce") not in self.nonces, "a nonce that was used before")
        self.nonces.add(one(pairs, "nonce")), self.is_prefix(one(pairs, "checkpoint"))
        self.by(one(pairs, "proposer"), "propose@countersign", text, entry["signature"])
        name, line = sha256(text.encode()).hex(), len(self.leaves)
        self.proposals[name] = dict(text=text, pairs=pairs, line=line, at=at, yes={}, open=True)

    def verdict(self, entry, _):
        proposal = self.proposals[entry["statement"]]
        head = {"approve": "approval", "deny": "denial"}[entry["verb"]]
        seen, who = entry["checkpoint"], entry["officer"]
        must(self.is_prefix((seen["size"], seen["root"])) > proposal["line"], "a verdict on what was not seen")
        text = f"countersign {head} v1\nofficer: {who}\ncheckpoint: {seen['size']} {seen['root']}\n{proposal['text']}"
        key = self.by(who, f"{entry['verb']}@countersign", text, entry["signature"])
        must(who != one(proposal["pairs"], "proposer"), f"{who} votes on a proposal of their own")
        proposal["yes"].pop(who, None)
        if entry["verb"] == "approve": proposal["yes"][who] = key

    def withdrawn(self, entry, _):
        proposal = self.proposals[entry["statement"]]
        who = one(proposal["pairs"], "proposer")
        text = f"countersign withdrawal v1\nappliance: {self.founding}\nofficer: {who}\nstatement: {entry['statement']}\n"
        self.by(who, "withdraw@countersign", text, entry["signature"])
        proposal["open"] = False

    def frozen(self, entry, _):
        self.by(one(fields(entry["text"]), "officer"), "freeze@countersign", entry["text"], entry["signature"])

    def is_met(self, proposal, kind, roster, rules, recovery, at):
        yes = {who for who, key in proposal["yes"].items() if who in roster and key in roster[who][1]}
        if self.roster[one(proposal["pairs"], "proposer")][0] == "recovery":
            persons, delay = recovery
            return at >= proposal["at"] + delay and sum(roster[who][0] == "recovery" for who in yes) >= persons
        return all(sum(roster[who][0] in roles for who in yes) >= n for n, roles in rules[kind])

    def begun(self, entry, at):
        proposal = self.proposals[entry["statement"]]
        pairs = proposal["pairs"]
        kind = one(pairs, "operation")
        must(proposal["open"], "it began before, or was withdrawn")
        at = seconds(one(pairs, "to")) if kind == "raise-time-floor" else at
        must(seconds(one(pairs, "not-before")) <= at <= seconds(one(pairs, "not-after")), "outside its window")
        roster, rules, recovery = self.roster, self.rules, self.recovery
        if kind == "change-officers":
            retired = {value for key, value in pairs if key == "retire"}
            roster = {who: of for who, of in roster.items() if who not in retired} | read_roster(pairs)
        if kind == "change-rules": rules, recovery = read_rules(pairs)
        for by in (self.roster, self.rules, self.recovery), (roster, rules, recovery):
            must(self.is_met(proposal, kind, *by, at), f"no quorum for {kind}")
        if kind == "replace-audit-key": self.audit = one(pairs, "key").split(" ")
        self.roster, self.rules, self.recovery, proposal["open"] = roster, rules, recovery, False

    def take(self, line):
        value = json.loads(line)
        canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        must(canonical.encode() == line, "not in canonical form") # no name is twice in it, either
        must(value["seq"] == str(len(self.leaves)), f"says that it is line {value['seq']}")
        entry, at = value["entry"], int(value["at"])
        must((entry["kind"] == "founded") == (not self.leaves), "a founding has to be the first line")
        if entry["kind"] in CHECKED: getattr(self, entry["kind"])(entry, at)
        self.leaves.append(sha256(b"\x00" + line))

    def sealed(self, note):
        body, _, seal = note.partition(b"\n\n")
        origin, size, digest = body.decode().split("\n")
        must(origin == f"countersign/{self.founding}", "the checkpoint is of another ledger")
        self.is_prefix((size, base64.b64decode(digest).hex()))
        raw = file(base64.b64decode(seal.decode().split(" ")[2])[4:])
        (prefix, digest), body = SPKI[self.audit[0]], file(body + b"\n")
        spki = file(bytes.fromhex(prefix + self.audit[1]))
        command = f"openssl pkeyutl -verify -rawin{digest} -pubin -keyform DER -inkey {spki} -sigfile {raw} -in {body}"
        must(run(command), "the checkpoint is not signed by the audit key")
        return int(size)

SPKI = {"ED25519": ("302a300506032b6570032100", ""), # DER before a key, and what openssl is told of the digest
        "ECDSAP256SHA256": ("3059301306072a8648ce3d020106082a8648ce3d03010703420004", " -digest sha256")}
CHECKED = {"founded", "proposed", "verdict", "withdrawn", "frozen", "begun"}

def main(path, founding):
    octets = open(path, "rb").read()
    head, _, rest = octets.partition(b"\n")
    words = head.decode().split(" ")
    must(words[:3] == ["countersign", "bundle", "v1"] and len(words) == 5, "no bundle")
    note, lines = rest[: int(words[3])], rest[int(words[3]) :].split(b"\n")
    must(lines.pop() == b"" and len(lines) == int(words[4]), "the bundle is cut short")
    ledger = Ledger(founding)
    for number, line in enumerate(lines):
        try:
            ledger.take(line)
        except (Wrong, KeyError, ValueError, AttributeError, TypeError) as problem:
            raise Wrong(f"line {number}: {problem!r}")
    size, ended = ledger.sealed(note), sum(not proposal["open"] for proposal in ledger.proposals.values())
    print(f"holds: {len(lines)} lines, sealed up to {size}; {len(ledger.proposals)} proposals, {ended} ended")

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as DIR:
        try:
            main(*sys.argv[1:])
        except Wrong as problem:
            sys.exit(f"does not hold: {problem}")
