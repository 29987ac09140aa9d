#!/usr/bin/env python3
"""verify_bundle.py BUNDLE FOUNDING_HASH: a second opinion on an audit bundle, by none of the product's code.

Checks that the bundle is one ledger from that founding on: each line canonical and in its place, the RFC 6962 tree under the
checkpoint's root, the checkpoint sealed by the audit key in force, the founding signed by everyone on its roster, each proposal,
verdict, withdrawal and freeze signed (by ssh-keygen's word) by a key that the person had at that line, each `begun` carried by as
many distinct persons as the rules in force asked for, and whatever the HSM is asked under one. Exits 0, or 1 and names the line.
"""
import base64, hashlib, json, subprocess, sys, tempfile
from datetime import datetime, timezone

class Wrong(Exception): pass
def must(condition, what):
    if not condition: raise Wrong(what)
def sha256(octets): return hashlib.sha256(octets).digest()
def root(leaves): # RFC 6962 section 2.1, of leaf hashes
    if len(leaves) < 2: return leaves[0] if leaves else sha256(b"")
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:]))
def run(command, stdin=b""): return not subprocess.run(command.split(" "), input=stdin, capture_output=True).returncode
def file(octets):
    with tempfile.NamedTemporaryFile(dir=DIR, delete=False) as it: it.write(octets)
    return it.name
def signed_by(keys, namespace, text, signature): # the one of `keys`, which are as texts have them
    lines = "\n".join(signature[at : at + 70] for at in range(0, len(signature), 70))
    sig = file(f"-----BEGIN SSH SIGNATURE-----\n{lines}\n-----END SSH SIGNATURE-----\n".encode())
    for key in keys:
        # Of a security key's signature ssh-keygen does not ask whether it was touched (flags, bit 0), or a PIN given (2).
        wanted = 5 if key.startswith("verify-required ") else 1 if key.startswith("sk-") else 0
        allowed = file(f'who namespaces="{namespace}" {key.removeprefix("verify-required ")}\n'.encode())
        command = f"ssh-keygen -Y verify -f {allowed} -I who -n {namespace} -s {sig}"
        if base64.b64decode(signature)[-5] & wanted == wanted and run(command, text.encode()): return key
def fields(text): # the lines of a text behind its head, as (name, value)
    must(text.endswith("\n") and text.isascii(), "a text that is not whole")
    return [tuple(line.split(": ", 1)) for line in text.split("\n")[1:-1]]
def one(pairs, name):
    values = [value for key, value in pairs if key == name]
    must(len(values) == 1, f"a text with {len(values)} fields {name}")
    return values[0]

def read_roster(pairs, before={}):
    roster = before.copy()
    for key, (name, *rest) in ((key, value.split(" ")) for key, value in pairs):
        if key == "retire": del roster[name]
        if key == "enrol": roster[name] = rest[0], []
        if key == "key": roster[name][1].append(" ".join(rest))
    keys = [key.split(" ")[-1] for _, of in roster.values() for key in of]
    must(len(keys) == len(set(keys)), "one key of two persons")
    return roster
def read_rules(pairs):
    rules = {}
    for kind, rule in (value.split(" ", 1) for key, value in pairs if key == "rule"):
        groups = [group.split(" ") for group in rule.split(" + ")]
        rules[kind] = [(int(persons), set(roles.split("|"))) for persons, roles in groups]
        roles = [role for _, group in rules[kind] for role in group] # of whom each counts once
        must(len(roles) == len(set(roles)) and sum(n for n, _ in rules[kind]) >= 2, "a rule below the floor")
    if one(pairs, "recovery") == "(none)": return rules, None
    persons, delay = (int(word) for word in one(pairs, "recovery").split(" after "))
    must(persons > 2 and delay >= 86400, "a rule of recovery below the floor")
    return rules, (persons, delay)
def seconds(text): return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp())

class Ledger:
    def __init__(self, founding):
        self.founding, self.leaves, self.proposals, self.nonces = founding, [], {}, set()
        self.holder, self.floor, self.clock, self.running = None, 0, 0, {} # running: which sort of motion began at a line

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
        text, pairs = entry["text"], fields(entry["text"])
        must(not self.leaves and sha256(text.encode()).hex() == self.founding, "another founding")
        self.roster, (self.rules, self.recovery) = read_roster(pairs), read_rules(pairs)
        self.audit = one(pairs, "audit-key").split(" ")
        self.floor, self.clock = seconds(one(pairs, "time")), 86400 * int(one(pairs, "clock-days"))
        must(set(entry["signatures"]) == set(self.roster), "not signed by everyone on the roster")
        for person, signature in entry["signatures"].items():
            self.by(person, "found@countersign", text, signature)

    def proposed(self, entry, at):
        text = entry["statement"]
        pairs = fields(text)
        must(one(pairs, "appliance") == self.founding, "a statement for another appliance")
        must(one(pairs, "nonce") not in self.nonces, "a nonce that was used before")
        self.nonces.add(one(pairs, "nonce")), self.is_prefix(one(pairs, "checkpoint"))
        key = self.by(one(pairs, "proposer"), "propose@countersign", text, entry["signature"])
        self.proposals[sha256(text.encode()).hex()] = dict(text=text, pairs=pairs, line=len(self.leaves), at=at, key=key,
                                                           votes={}, open=True)

    def verdict(self, entry, _):
        proposal = self.proposals[entry["statement"]]
        head = {"approve": "approval", "deny": "denial"}[entry["verb"]]
        seen, who = entry["checkpoint"], entry["officer"]
        must(self.is_prefix((seen["size"], seen["root"])) > proposal["line"], "a verdict on what was not seen")
        text = f"countersign {head} v1\nofficer: {who}\ncheckpoint: {seen['size']} {seen['root']}\n{proposal['text']}"
        key = self.by(who, f"{entry['verb']}@countersign", text, entry["signature"])
        must(who != one(proposal["pairs"], "proposer"), f"{who} votes on a proposal of their own")
        must(proposal["votes"].get(who, key), f"{who} denied it before")
        proposal["votes"][who] = key if entry["verb"] == "approve" else None

    def withdrawn(self, entry, _):
        proposal = self.proposals[entry["statement"]]
        who = one(proposal["pairs"], "proposer")
        text = f"countersign withdrawal v1\nappliance: {self.founding}\nofficer: {who}\nstatement: {entry['statement']}\n"
        self.by(who, "withdraw@countersign", text, entry["signature"])
        proposal["open"] = False

    def frozen(self, entry, _): self.by(one(fields(entry["text"]), "officer"), "freeze@countersign", entry["text"], entry["signature"])

    def is_met(self, proposal, kind, roster, rules, recovery, at):
        role, keys = self.roster[one(proposal["pairs"], "proposer")]
        must(proposal["key"] in keys, "the key that proposed it is the proposer's no more")
        yes = {who for who, key in proposal["votes"].items() if who in roster and key in roster[who][1] and key != proposal["key"]}
        if role == "recovery":
            must(kind in {"change-officers", "change-rules", "new-origin"}, f"the recovery group carries {kind}")
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
        roster = read_roster(pairs, self.roster) if kind == "change-officers" else self.roster
        rules, recovery = read_rules(pairs) if kind == "change-rules" else (self.rules, self.recovery)
        for by in (self.roster, self.rules, self.recovery), (roster, rules, recovery):
            must(self.is_met(proposal, kind, *by, at), f"no quorum for {kind}")
        if kind == "replace-audit-key": self.audit = one(pairs, "key").split(" ")
        if kind == "raise-time-floor": self.floor = at
        if kind == "move-appliance":
            must(one(pairs, "from") == self.holder, "it moves the appliance from a box that does not hold it")
            self.holder = one(pairs, "to")
        self.running[len(self.leaves)] = kind
        self.roster, self.rules, self.recovery, proposal["open"] = roster, rules, recovery, False

    def used(self, entry, _):
        asked = entry.get("operation", {"verb": entry["kind"]})
        verb, under = asked["verb"] + (" zsk" if asked.get("role") == "zsk" else ""), entry.get("under", entry.get("begun"))
        must(self.running.get(int(under)) in UNDER[verb], f"{verb} under no motion that allows it")
        self.running[len(self.leaves)] = "intent"

    def claimed(self, entry, _):
        must(self.holder is None, "a second claim; another box takes the tokens by a motion alone")
        self.holder = entry["instance"]

    def started(self, entry, _): must(entry["instance"] == self.holder, "a box started that does not hold the tokens")

    def take(self, line):
        value = json.loads(line)
        canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        must(canonical.encode() == line, "not in canonical form") # no name is twice in it, either
        must(value["seq"] == str(len(self.leaves)), f"says that it is line {value['seq']}")
        entry, at = value["entry"], int(value["at"])
        must((entry["kind"] == "founded") == (not self.leaves), "a founding has to be the first line")
        if entry["kind"] in CHECKED: CHECKED[entry["kind"]](self, entry, max(at, self.floor))
        if self.floor < at <= self.floor + self.clock: self.floor = at
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
UNDER = {"generate": {"generate-key"}, "generate zsk": {"bind-zone"}, "adopt": {"adopt-key"}, "adopt zsk": {"adopt-key"},
         "sign-dnskey": {"bind-zone", "sign-dnskey-set"}, "ds-exported": {"export-ds"},
         "sign-cds": {"publish-cds", "delete-ds"}, "destroy": {"destroy-key", "intent"}} # an orphan's: what made it
CHECKED = {"founded": Ledger.founded, "proposed": Ledger.proposed, "verdict": Ledger.verdict, "withdrawn": Ledger.withdrawn,
           "frozen": Ledger.frozen, "begun": Ledger.begun, "intent": Ledger.used, "ds-exported": Ledger.used,
           "instance-claimed": Ledger.claimed, "started": Ledger.started}

def main(path, founding):
    head, _, rest = open(path, "rb").read().partition(b"\n")
    *magic, octets, count = head.decode().split(" ")
    must(magic == ["countersign", "bundle", "v1"], "no bundle")
    note, lines = rest[: int(octets)], rest[int(octets) :].split(b"\n")
    must(lines.pop() == b"" and len(lines) == int(count), "the bundle is cut short")
    ledger = Ledger(founding)
    for number, line in enumerate(lines):
        try: ledger.take(line)
        except (Wrong, KeyError, ValueError, AttributeError, TypeError) as problem:
            raise Wrong(f"line {number}: {problem!r}")
    size, ended = ledger.sealed(note), sum(not proposal["open"] for proposal in ledger.proposals.values())
    print(f"holds: {len(lines)} lines, sealed up to {size}; {len(ledger.proposals)} proposals, {ended} ended")

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as DIR:
        try: main(*sys.argv[1:])
        except Wrong as problem: sys.exit(f"does not hold: {problem}")
