#!/usr/bin/env python3
"""A peer that signs by TSIG (RFC 8945), written from the RFC and sharing no code with Countersign.

  tsig_peer.py ask PORT KEY ALGORITHM SECRET ZONE TYPE [--offset S] [--mac OCTETS] [--udp] [--flip]
      asks, S seconds late or early, with a MAC cut to so many octets, or with a wrong one; prints one line:
      rcode=N error=N mac=good|bad|none records=N

  tsig_peer.py serve PORT KEY ALGORITHM SECRET ZONE MODE
      a primary that gives ZONE in 250 messages. MODE says which of them it signs:
      all, sparse (every hundredth, and the last), gap (a hundred in a row unsigned), open (all but the last),
      none. It checks each request's TSIG itself and answers nothing to a wrong one.
"""
import argparse, base64, hashlib, hmac, os, socket, struct, sys, threading, time

TSIG, SOA, NS, A, AXFR = 250, 6, 2, 1, 252
MESSAGES = 250


def wire(name):
    out = b""
    for label in name.rstrip(".").split("."):
        if label:
            out += bytes([len(label)]) + label.encode()
    return out + b"\0"


class Key:
    def __init__(self, name, algorithm, secret):
        self.name, self.algorithm = wire(name.lower()), wire(algorithm)
        self.secret = base64.b64decode(secret)
        self.hash = getattr(hashlib, algorithm.split("-")[1])

    def mac(self, data):
        return hmac.new(self.secret, data, self.hash).digest()


def timers(when):
    return struct.pack("!Q", when)[2:] + struct.pack("!H", 300)


def variables(key, when, error=0, other=b""):
    return (key.name + struct.pack("!HI", 255, 0) + key.algorithm + timers(when)
            + struct.pack("!HH", error, len(other)) + other)


def append(message, key, when, mac, error=0, other=b""):
    rdata = (key.algorithm + timers(when) + struct.pack("!H", len(mac)) + mac + message[:2]
             + struct.pack("!HH", error, len(other)) + other)
    record = key.name + struct.pack("!HHIH", TSIG, 255, 0, len(rdata)) + rdata
    count = struct.unpack("!H", message[10:12])[0] + 1
    return message[:10] + struct.pack("!H", count) + message[12:] + record


def skip(message, at):
    while True:
        n = message[at]
        if n == 0:
            return at + 1
        if n >= 0xC0:
            return at + 2
        at += 1 + n


def take_off(message):
    """The message without its last record if that is a TSIG; the TSIG's fields."""
    counts = struct.unpack("!4H", message[4:12])
    at = 12
    for _ in range(counts[0]):
        at = skip(message, at) + 4
    start, rtype = None, None
    for _ in range(sum(counts[1:])):
        start = at
        at = skip(message, at)
        rtype, _, _, length = struct.unpack("!HHIH", message[at:at + 10])
        data = at + 10
        at = data + length
    if rtype != TSIG:
        return message, None
    p = skip(message, data)
    when = int.from_bytes(message[p:p + 6], "big")
    size = struct.unpack("!H", message[p + 8:p + 10])[0]
    mac = message[p + 10:p + 10 + size]
    p += 10 + size
    original, error, length = struct.unpack("!HHH", message[p:p + 6])
    other = message[p + 6:p + 6 + length]
    stripped = (struct.pack("!H", original) + message[2:10]
                + struct.pack("!H", counts[3] - 1) + message[12:start])
    return stripped, dict(when=when, mac=mac, error=error, other=other)


def sized(mac):
    return struct.pack("!H", len(mac)) + mac


def receive(stream):
    def exactly(n):
        data = b""
        while len(data) < n:
            more = stream.recv(n - len(data))
            if not more:
                raise EOFError
            data += more
        return data
    return exactly(struct.unpack("!H", exactly(2))[0])


def send(stream, message):
    stream.sendall(struct.pack("!H", len(message)) + message)


def ask(args):
    key = Key(args.key, args.algorithm, args.secret)
    types = {"SOA": SOA, "AXFR": AXFR, "A": A}
    query = (os.urandom(2) + struct.pack("!5H", 0, 1, 0, 0, 0) + wire(args.zone)
             + struct.pack("!HH", types[args.type], 1))
    when = int(time.time()) + args.offset
    mac = key.mac(query + variables(key, when))
    if args.flip:
        mac = bytes([mac[0] ^ 1]) + mac[1:]
    mac = mac[:args.mac]
    signed = append(query, key, when, mac)
    kind = socket.SOCK_DGRAM if args.udp else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as stream:
        stream.settimeout(20)
        stream.connect(("127.0.0.1", args.port))
        if args.udp:
            stream.send(signed)
        else:
            send(stream, signed)
        prior, first, records, soas, verdict = mac, True, 0, 0, "none"
        while True:
            answer = stream.recv(65535) if args.udp else receive(stream)
            stripped, tsig = take_off(answer)
            rcode, error = answer[3] & 15, 0
            if tsig:
                error = tsig["error"]
                tail = (variables(key, tsig["when"], error, tsig["other"]) if first
                        else timers(tsig["when"]))
                if tsig["mac"]:
                    verdict = "good" if tsig["mac"] == key.mac(sized(prior) + stripped + tail) else "bad"
                prior = tsig["mac"]
            else:
                verdict = "none"
            first = False
            counts = struct.unpack("!4H", stripped[4:12])
            records += counts[1]
            at = 12
            for _ in range(counts[0]):
                at = skip(stripped, at) + 4
            for _ in range(counts[1]):
                at = skip(stripped, at)
                rtype, _, _, length = struct.unpack("!HHIH", stripped[at:at + 10])
                soas += rtype == SOA
                at += 10 + length
            if args.type != "AXFR" or rcode or soas == 2 or verdict == "bad":
                break
    print(f"rcode={rcode} error={error} mac={verdict} records={records}")


def record(owner, rtype, rdata):
    return owner + struct.pack("!HHIH", rtype, 1, 300, len(rdata)) + rdata


def serve(args):
    key, zone = Key(args.key, args.algorithm, args.secret), wire(args.zone)
    soa = record(zone, SOA, b"\x02ns" + zone + b"\x01h" + zone + struct.pack("!5I", 7, 3600, 600, 604800, 120))
    ns = record(zone, NS, b"\x03ns1" + zone) + record(b"\x03ns1" + zone, A, bytes([192, 0, 2, 1]))

    def host(number):
        label = f"h{number}".encode()
        return record(bytes([len(label)]) + label + zone, A, bytes([192, 0, 2, number % 250 + 1]))

    def signed_at(number):
        last = number == MESSAGES - 1
        return {
            "all": True,
            "sparse": number % 100 == 0 or last,
            "gap": number == 0 or number > 100,
            "open": not last,
            "none": False,
        }[args.mode] or number == 0 and args.mode != "none"

    def talk(stream):
        while True:
            query = receive(stream)
            stripped, tsig = take_off(query)
            if not tsig or tsig["mac"] != key.mac(stripped + variables(key, tsig["when"])):
                print("a request without a good TSIG", flush=True)
                return
            at = skip(stripped, 12)
            rtype = struct.unpack("!H", stripped[at:at + 2])[0]
            question = stripped[12:at + 4]
            header = stripped[:2] + struct.pack("!5H", 0x8400, 1, 0, 0, 0)
            bodies = [(1, soa)]
            if rtype == AXFR:
                bodies = [(3, soa + ns)]
                bodies += [(1, host(number)) for number in range(1, MESSAGES - 1)] + [(1, soa)]
            prior, pending = sized(tsig["mac"]), b""
            for number, (count, body) in enumerate(bodies):
                message = header[:6] + struct.pack("!H", count) + header[8:] + question + body
                pending += message
                if rtype != AXFR and args.mode != "none" or rtype == AXFR and signed_at(number):
                    when = int(time.time())
                    mac = key.mac(prior + pending + (timers(when) if number else variables(key, when)))
                    message = append(message, key, when, mac)
                    prior, pending = sized(mac), b""
                send(stream, message)
            if rtype == AXFR:
                print("transferred", flush=True)

    def shielded(stream):
        try:
            talk(stream)
        except (EOFError, OSError):
            pass
        stream.close()

    with socket.create_server(("127.0.0.1", args.port)) as listener:
        print("listening", flush=True)
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=shielded, args=(stream,), daemon=True).start()


def main():
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(required=True)
    for name, run in (("ask", ask), ("serve", serve)):
        verb = verbs.add_parser(name)
        verb.set_defaults(run=run)
        verb.add_argument("port", type=int)
        for argument in ("key", "algorithm", "secret", "zone"):
            verb.add_argument(argument)
        if name == "ask":
            verb.add_argument("type")
            verb.add_argument("--offset", type=int, default=0)
            verb.add_argument("--mac", type=int, default=64)
            verb.add_argument("--udp", action="store_true")
            verb.add_argument("--flip", action="store_true")
        else:
            verb.add_argument("mode")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    sys.exit(main())
