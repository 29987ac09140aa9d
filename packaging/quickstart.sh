#!/usr/bin/env bash
# Countersign's main job from one command: an operator and three key officers found an appliance; a zone
# from a hidden primary (BIND) comes in over mutual TLS, waits until two officers have approved its KSK,
# is signed by the keeper on two SoftHSM tokens, verified, and given to a secondary (BIND) over mutual TLS.
# Three verifiers that are not ours look at what the secondary serves, and one at the ledger.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=needs.sh
. "$here/needs.sh"

usage() {
  cat <<'TXT'
usage: quickstart.sh [--once] [--dir DIR]

  --once     do it, write the results, stop everything, and exit 0 only if all verifiers agree
  --dir DIR  where to write signed.zone, anchor.ds, audit.bundle and report.json (with --once;
             default: here)

Without --once it stays up until Ctrl-C. Packages that are missing are installed and the users
countersign-keeper and countersign are made, with root or sudo; without either it uses what is
there and runs everything as one user.
TXT
}

once=no dir='' built=no
arguments=("$@")
while [ $# -gt 0 ]; do
  case $1 in
    --once) once=yes ;;
    --dir) dir=${2:?--dir needs a directory} && shift ;;
    --built) built=yes ;; # from ourselves, under sudo: building was done as the user
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
readonly ZONE=example. PINS_BYTES=12 KEEPER_AWAY_S=30
dir=${dir:-$PWD}

milliseconds() { date +%s%3N; }
started=$(milliseconds)

# ── what it takes ──────────────────────────────────────────────────────────────────────────────
build() {
  needs_to_build
  say "Building (the first time takes a few minutes) ..."
  # Apart from one another: built together, the daemon would get the keeper's PKCS#11 code.
  (cd "$here/.." && cargo build --quiet --locked -p countersign-hsm --bin countersign-keeper &&
    cargo build --quiet --locked -p countersign-signer --bins) || die "the build failed; see above"
}
needs named:bind9 dig:bind9-dnsutils dnssec-verify:bind9-utils unbound:unbound \
  ldns-verify-zone:ldnsutils pkcs11-tool:opensc openssl:openssl setpriv:util-linux \
  /usr/lib/softhsm/libsofthsm2.so:softhsm2 ssh-keygen:openssh-client python3:python3
target=${CARGO_TARGET_DIR:-$here/../target}/debug
if [ "$built" = no ]; then
  build
  if [ "$(root_by)" = sudo ]; then
    exec sudo env PATH="$PATH" CARGO_TARGET_DIR="${target%/debug}" \
      bash "$here/quickstart.sh" --built "${arguments[@]}"
  fi
fi
built_at=$(milliseconds)

# ── users and places ───────────────────────────────────────────────────────────────────────────
# Each part has a directory of its own that no other user enters, below one that all can.
work=$(mktemp -d /tmp/countersign-quickstart.XXXXXX)
chmod 755 "$work"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
pids=()
names=()

# A child that has ended is a zombie until it is waited for, and kill -0 still finds it.
alive() { grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"; }

stop_all() {
  local status=$? i deadline
  trap - EXIT INT TERM
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill -TERM "${pids[i]}" 2>/dev/null || continue
    deadline=$((SECONDS + 15))
    while alive "${pids[i]}"; do
      if [ $SECONDS -ge $deadline ]; then
        say "${names[i]} (${pids[i]}) does not stop; killing it"
        kill -KILL "${pids[i]}" 2>/dev/null || true
        break
      fi
      read -rt 0.1 <> <(:) || true
    done
    wait "${pids[i]}" 2>/dev/null || true
  done
  if [ "$status" -ne 0 ] && [ "$status" -ne 130 ]; then
    for log in "$work"/*.log; do
      [ -s "$log" ] || continue
      printf '──── last lines of %s ────\n' "${log##*/}" >&2
      tail -n 15 "$log" >&2
    done
  fi
  rm -rf "$work"
  exit "$status"
}
trap stop_all EXIT
trap 'exit 130' INT TERM

if [ "$(id -u)" -eq 0 ]; then
  two_users=true
  for user in countersign countersign-keeper; do
    id "$user" >/dev/null 2>&1 ||
      useradd --system --user-group --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
  done
  # The keeper gives its second socket to the group, so it has to be in it.
  usermod --append --groups countersign countersign-keeper
  keeper_user=countersign-keeper daemon_user=countersign group=countersign
  give() { chown -R "$1:" "${@:2}"; }
else
  two_users=false
  keeper_user=$(id -u) daemon_user=$(id -u) group=$(id -g)
  give() { :; }
  say "NOTE: neither root nor sudo, so keeper, daemon and name servers all run as uid $keeper_user."
  say "      That weakens what the keeper is for: whoever takes over the daemon can read the PINs."
fi
# as USER sets the array `as` to what runs a command as that user, in the very process that is
# started: its pid is the one to stop.
as() {
  as=()
  [ $two_users = false ] || as=(setpriv --reuid "$1" --regid "$1" --init-groups --no-new-privs)
}
keeper_dir=$work/keeper daemon_dir=$work/daemon bind_dir=$work/bind unbound_dir=$work/unbound
officers_dir=$work/officers
mkdir -m 700 "$keeper_dir" "$bind_dir" "$unbound_dir" "$officers_dir"
mkdir -m 755 "$daemon_dir" "$work/bin" "$work/run" "$daemon_dir/run"
mkdir -m 700 "$keeper_dir"/{state,tokens} "$daemon_dir/state"
mkdir -m 755 "$work/run/keeper"
# Programs from a place that every user can reach. For named and unbound it is also that Debian's
# AppArmor profiles go by path, and allow only the system's own configuration.
cp "$target"/{countersign-keeper,countersignd,countersign} "$(command -v named)" \
  "$(command -v unbound)" "$work/bin/"
bind_user=$daemon_user unbound_user=$daemon_user
if [ "$two_users" = true ]; then bind_user=bind unbound_user=unbound; fi

# until_ok SECONDS WHAT COMMAND... waits for COMMAND to succeed.
until_ok() {
  local deadline=$((SECONDS + $1)) what=$2 i
  shift 2
  until "$@" >/dev/null 2>&1; do
    for i in "${!pids[@]}"; do
      alive "${pids[i]}" || die "${names[i]} has ended while we waited for $what"
    done
    [ $SECONDS -lt $deadline ] || die "$what: not in time"
    read -rt 0.1 <> <(:) || true
  done
}

# start NAME USER COMMAND... in the background, its output in NAME.log.
start() {
  local name=$1
  as "$2"
  shift 2
  "${as[@]}" "$@" >"$work/$name.log" 2>&1 </dev/null &
  pids+=($!)
  names+=("$name")
}

port=15300
next_port() {
  local hex
  while :; do
    port=$((port + 1))
    hex=$(printf ':%04X ' "$port")
    grep -q "$hex" /proc/net/tcp /proc/net/udp || break
  done
}
next_port && primary_xot=$port
next_port && primary_dns=$port
next_port && signer_dns=$port
next_port && signer_xot=$port
next_port && signer_api=$port
next_port && secondary_port=$port
next_port && resolver_port=$port

# ── a certificate authority and four certificates ──────────────────────────────────────────────
pki=$work/pki
mkdir -m 755 "$pki"
new_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
(
  umask 077
  openssl req -x509 "${new_key[@]}" -days 30 -subj "/CN=quick start CA" -keyout "$pki/ca.key" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
    -out "$pki/ca.pem"
  for name in primary signer secondary ops; do
    openssl req -new "${new_key[@]}" -subj "/CN=$name.test" -keyout "$pki/$name.key" \
      -out "$pki/$name.csr"
    printf '%s\n' "subjectAltName=DNS:$name.test" basicConstraints=critical,CA:FALSE \
      keyUsage=critical,digitalSignature extendedKeyUsage=serverAuth,clientAuth >"$pki/$name.ext"
    openssl x509 -req -in "$pki/$name.csr" -CA "$pki/ca.pem" -CAkey "$pki/ca.key" \
      -CAcreateserial -days 30 -extfile "$pki/$name.ext" -out "$pki/$name.pem"
  done
) >"$work/openssl.log" 2>&1
chmod 644 "$pki"/*.pem
give "$daemon_user" "$pki/signer.key"
give "$bind_user" "$pki/primary.key" "$pki/secondary.key"

# ── two tokens, for KSKs and for ZSKs, each with a PIN that nobody has typed ───────────────────
printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' \
  "$keeper_dir/tokens" >"$keeper_dir/softhsm2.conf"
for token in ksk-a zsk-a; do
  (umask 077 && openssl rand -hex $PINS_BYTES | tr -d '\n' >"$keeper_dir/$token.pin")
done
give "$keeper_user" "$keeper_dir" "$work/run/keeper"
softhsm() {
  as "$keeper_user"
  "${as[@]}" env SOFTHSM2_CONF="$keeper_dir/softhsm2.conf" "$@" \
    --module /usr/lib/softhsm/libsofthsm2.so
}
# softhsm2-util takes PINs from argv, where everyone can see them; pkcs11-tool takes them from
# its environment, which only its own user can see.
index=0
for token in ksk-a zsk-a; do
  SO_PIN=$(openssl rand -hex $PINS_BYTES) PIN=$(<"$keeper_dir/$token.pin")
  export SO_PIN PIN
  softhsm pkcs11-tool --init-token --slot-index $index --label $token --so-pin env:SO_PIN
  softhsm pkcs11-tool --init-pin --token-label $token --login --so-pin env:SO_PIN --pin env:PIN
  unset SO_PIN PIN
  index=$((index + 1))
done >"$work/tokens.log" 2>&1
serial_of() {
  softhsm pkcs11-tool --list-slots 2>/dev/null |
    awk -F' *: *' -v label="$1" '/token label/ { mine = ($2 == label) }
      /serial num/ && mine { print $2 }'
}

# ── configuration, from packaging/examples ─────────────────────────────────────────────────────
sed -e "s|/usr/lib/softhsm|@MODULES@|; s|/var/lib/countersign-keeper|$keeper_dir/state|" \
  -e "s|/run/countersign-keeper|$work/run/keeper|; s|/etc/countersign-keeper|$keeper_dir|" \
  -e "s|@MODULES@|/usr/lib/softhsm|; s|^daemon_user = .*|daemon_user = \"$daemon_user\"|" \
  -e "s|^group = .*|group = \"$group\"|; s|0123456789abcdef|$(serial_of ksk-a)|" \
  -e "s|fedcba9876543210|$(serial_of zsk-a)|" "$here/examples/keeper.toml" >"$keeper_dir/keeper.toml"
sed -e "s|/run/countersign-keeper|$work/run/keeper|; s|/run/countersign/|$daemon_dir/run/|" \
  -e "s|/var/lib/countersign\"|$daemon_dir/state\"|; s|/etc/countersign|$pki|" \
  -e "s|127.0.0.1:5301|127.0.0.1:$signer_dns|; s|127.0.0.1:8853|127.0.0.1:$signer_xot|" \
  -e "s|127.0.0.1:8443|127.0.0.1:$signer_api|; s|127.0.0.1:8531|127.0.0.1:$primary_xot|" \
  -e "s|127.0.0.1:5302|127.0.0.1:$secondary_port|; s|^group = .*|group = \"$group\"|" \
  "$here/examples/countersignd.toml" >"$daemon_dir/countersignd.toml"
chmod 600 "$keeper_dir"/*.toml
give "$keeper_user" "$keeper_dir"
give "$daemon_user" "$daemon_dir"

cat >"$bind_dir/example.zone" <<'ZONE'
$ORIGIN example.
$TTL 300
@          IN SOA  ns1 hostmaster 1 3600 600 604800 120
@          IN NS   ns1
@          IN NS   ns2
@          IN MX   10 Mail
ns1        IN A    192.0.2.1
ns2        IN AAAA 2001:db8::2
Mail       IN A    192.0.2.25
www        IN CNAME web.elsewhere.test.
*.wild     IN TXT  "a wildcard"
deep.empty IN A    192.0.2.3
insecure   IN NS   ns.insecure
ns.insecure IN A   192.0.2.53
ZONE
bind_options="pid-file none; session-keyfile none; listen-on-v6 { none; }; recursion no;
  dnssec-validation no; empty-zones-enable no; notify-delay 0;"
mkdir -m 700 "$bind_dir"/{primary,secondary}
cat >"$bind_dir/primary.conf" <<CONF
tls srv { cert-file "$pki/primary.pem"; key-file "$pki/primary.key"; ca-file "$pki/ca.pem"; protocols { TLSv1.3; }; };
options { $bind_options directory "$bind_dir/primary";
  listen-on port $primary_xot tls srv { 127.0.0.1; }; listen-on port $primary_dns { 127.0.0.1; };
  allow-transfer port $primary_xot transport tls { 127.0.0.1; };
  notify explicit; also-notify { 127.0.0.1 port $signer_dns; }; };
controls { };
zone "$ZONE" { type primary; file "$bind_dir/example.zone"; };
CONF
cat >"$bind_dir/secondary.conf" <<CONF
tls cli { cert-file "$pki/secondary.pem"; key-file "$pki/secondary.key"; ca-file "$pki/ca.pem"; remote-hostname "signer.test"; protocols { TLSv1.3; }; };
options { $bind_options directory "$bind_dir/secondary"; listen-on port $secondary_port { 127.0.0.1; };
  allow-transfer { 127.0.0.1; }; notify no; min-retry-time 1; max-retry-time 2; };
controls { };
zone "$ZONE" { type secondary; file "zone"; primaries { 127.0.0.1 port $signer_xot tls cli; }; allow-notify { 127.0.0.1; }; };
CONF
give "$bind_user" "$bind_dir"

# ── up ─────────────────────────────────────────────────────────────────────────────────────────
cli=("$work/bin/countersign" --socket "$daemon_dir/run/api.sock")
soa() { dig @127.0.0.1 -p "$1" +short +time=2 +tries=1 "$ZONE" SOA | awk 'NF == 7 { print $3; found = 1 } END { exit !found }'; }

say "Starting: hidden primary, keeper, signer, secondary ..."
up_at=$(milliseconds)
start primary "$bind_user" "$work/bin/named" -g -4 -n 1 -c "$bind_dir/primary.conf"
until_ok 30 "the primary's answer" soa "$primary_dns"
start_keeper() {
  local i
  # The one that has ended is nobody whom we wait for any more.
  for i in "${!names[@]}"; do
    [ "${names[i]}" != keeper ] || unset "names[i]" "pids[i]"
  done
  start keeper "$keeper_user" env SOFTHSM2_CONF="$keeper_dir/softhsm2.conf" \
    "$work/bin/countersign-keeper" --config "$keeper_dir/keeper.toml"
  keeper_pid=$!
}
start_keeper
until_ok 30 "the keeper's second socket" test -S "$work/run/keeper/ledger.sock"
say "The keeper has no founding yet: it takes a survey and a founding, and nothing else."

# ── people ─────────────────────────────────────────────────────────────────────────────────────
# Each has an SSH key and a memory of what their command line has seen. (Here they share a machine.)
people=(olga kay kim kurt)
for person in "${people[@]}"; do
  ssh-keygen -q -t ed25519 -N '' -C "$person" -f "$officers_dir/$person"
done
founding=''
# by PERSON COMMAND... is `countersign` as that person runs it.
by() {
  local person=$1
  shift
  COUNTERSIGN_LEDGER_SOCKET="$work/run/keeper/ledger.sock" COUNTERSIGN_AS="$person" \
    COUNTERSIGN_IDENTITY="$officers_dir/$person" COUNTERSIGN_PINS="$officers_dir/$person.pins" \
    COUNTERSIGN_FOUNDING="$founding" "$work/bin/countersign" --yes "$@"
}
# `by` without a founding to insist on: there is none before everyone has signed it.
found() {
  local person=$1
  shift
  (
    unset COUNTERSIGN_FOUNDING
    COUNTERSIGN_LEDGER_SOCKET="$work/run/keeper/ledger.sock" COUNTERSIGN_AS="$person" \
      COUNTERSIGN_IDENTITY="$officers_dir/$person" COUNTERSIGN_PINS="$officers_dir/$person.pins" \
      "$work/bin/countersign" --yes "$@"
  )
}
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" | head -n 1; }

cp "$here/examples/founding.toml" "$officers_dir/"
text=$officers_dir/quickstart.founding
until_ok 30 "the survey of the tokens" found olga survey
founding=$(found olga --json found draft --from "$officers_dir/founding.toml" --out "$text" | field hash)
for person in "${people[@]}"; do
  by "$person" found sign "$text" >/dev/null
done
# Root's part: nobody else can write this file.
sed -i "s|^audit_token = .*|&\nfounding = \"$founding\"|" "$keeper_dir/keeper.toml"
by olga found submit "$text" "$text".*.sig >/dev/null
status=0
wait "$keeper_pid" || status=$?
[ $status -eq 5 ] || die "founded, the keeper ended with $status, expected 5"
start_keeper
until_ok 30 "the founded keeper" test -S "$work/run/keeper/keeper.sock"
say "Founded by ${people[*]}, and pinned by root: $founding"

# propose MOTION... as olga; the statement's id.
propose() { by olga --json propose "$@" | field id; }
status_of() { by olga --json proposal show "$1" | field status; }
is_done() { [[ $(status_of "$1") == done* ]]; }
# two_approve ID, and what was proposed is done.
two_approve() {
  by kay approve "$1" >/dev/null
  by kim approve "$1" >/dev/null
  until_ok 30 "what $1 proposes" is_done "$1"
}
two_approve "$(propose set-policy --name default --ksk-group ksk --zsk-group zsk \
  --denial nsec3 --serial unixtime)"
two_approve "$(propose bind-zone --zone "$ZONE" --policy default)"
start signer "$daemon_user" "$work/bin/countersignd" --config "$daemon_dir/countersignd.toml"
# It is up, and says that something needs attention: the zone has no key yet.
answers() { "$@" || [ $? -eq 4 ]; }
until_ok 30 "the signer's API" answers "${cli[@]}" daemon status --json

# ── a KSK waits for two ────────────────────────────────────────────────────────────────────────
waits() { say "  waits: $(by olga --json proposal show "$1" | field missing)"; }
# must_not WHAT COMMAND... is refused, or something is very wrong.
must_not() {
  local what=$1
  shift
  if "$@" >/dev/null 2>&1; then die "$what, which takes two officers"; fi
}
ksk=$(propose generate-key --zone "$ZONE" --role ksk --activate)
say "olga proposes a KSK for $ZONE: ${ksk:0:8}"
waits "$ksk"
must_not "olga approved her own" by olga approve "$ksk"
by kay approve "$ksk" >/dev/null
say "  kay approves it"
waits "$ksk"
must_not "a KSK was made" is_done "$ksk"
must_not "a zone went out" soa "$signer_dns"
by kim approve "$ksk" >/dev/null
say "  kim approves it"
until_ok 30 "the KSK" is_done "$ksk"
until_ok 60 "the signed zone on the signer" soa "$signer_dns"
start secondary "$bind_user" "$work/bin/named" -g -4 -n 1 -c "$bind_dir/secondary.conf"
until_ok 90 "the signed zone on the secondary" soa "$secondary_port"
served_at=$(milliseconds)

# ── and so do the DS records for its parent ────────────────────────────────────────────────────
ds=$work/exported.ds
must_not "DS records were handed out" by olga ds export "$ZONE"
export=$(propose export-ds --zone "$ZONE")
say "olga proposes to hand out the DS records of $ZONE: ${export:0:8}"
waits "$export"
by kurt approve "$export" >/dev/null
say "  kurt approves it"
must_not "DS records were handed out" by olga ds export "$ZONE"
by kay approve "$export" >/dev/null
say "  kay approves it"
until_ok 30 "the approval of the export" is_done "$export"
by olga ds export "$ZONE" >"$ds"
sed -n '/^[^;]/s/^/  /p' "$ds"

# ── what others say of it ──────────────────────────────────────────────────────────────────────
checks=()
agree=yes
json() {
  local text=$1
  text=${text//\\/\\\\} text=${text//\"/\\\"} text=${text//$'\n'/\\n} text=${text//$'\t'/ }
  printf '"%s"' "$text"
}
# check TOOL VERSION WHAT COMMAND... runs COMMAND and notes what it said.
check() {
  local tool=$1 version=$2 what=$3 said ok=true from
  shift 3
  from=$(milliseconds)
  said=$("$@" 2>&1) || ok=false
  [ $ok = true ] || agree=no
  say "  $([ $ok = true ] && printf 'agrees   ' || printf 'DISAGREES') $tool: $what"
  [ $ok = true ] || say "$said"
  checks+=("$(printf '{"tool": %s, "version": %s, "checked": %s, "agrees": %s, "milliseconds": %d, "said": %s}' \
    "$(json "$tool")" "$(json "$version")" "$(json "$what")" $ok \
    $(($(milliseconds) - from)) "$(json "$said")")")
}
version_of() { dpkg-query --show --showformat '${Version}' "$1" 2>/dev/null || printf 'unknown'; }

signed=$work/signed.zone anchor=$work/anchor.ds
dig @127.0.0.1 -p "$secondary_port" +noall +answer +onesoa "$ZONE" AXFR >"$signed"
dnssec-dsfromkey -2 -f "$signed" "$ZONE" >"$anchor"
chmod 644 "$signed" "$anchor"
cp "$anchor" "$unbound_dir/anchor.ds"
cat >"$unbound_dir/unbound.conf" <<CONF
server:
  interface: 127.0.0.1@$resolver_port
  directory: "$unbound_dir"
  pidfile: ""
  chroot: ""
  username: ""
  use-syslog: no
  logfile: ""
  num-threads: 1
  do-ip6: no
  do-not-query-localhost: no
  trust-anchor-signaling: no
  module-config: "validator iterator"
  trust-anchor-file: "$unbound_dir/anchor.ds"
  cache-max-ttl: 5
  cache-max-negative-ttl: 5
remote-control:
  control-enable: no
stub-zone:
  name: "$ZONE"
  stub-addr: 127.0.0.1@$secondary_port
CONF
give "$unbound_user" "$unbound_dir"
start resolver "$unbound_user" "$work/bin/unbound" -d -c "$unbound_dir/unbound.conf"
ask() { dig @127.0.0.1 -p "$resolver_port" +dnssec +time=5 +tries=1 "$@"; }
until_ok 30 "the resolver's answer" ask localhost. A

with_ldns() { ldns-verify-zone -V 4 -k "$anchor" "$signed"; }
with_bind() { dnssec-verify -o "$ZONE" "$signed"; }
with_unbound() {
  local question rcode answer
  for question in "example. SOA:NOERROR" "mail.example. A:NOERROR" "x.wild.example. TXT:NOERROR" \
    "no-such-name.example. A:NXDOMAIN" "ns1.example. AAAA:NOERROR"; do
    rcode=${question#*:}
    # shellcheck disable=SC2086 # name and type are two words
    answer=$(ask ${question%:*})
    if ! grep -q "status: $rcode," <<<"$answer" || ! grep -q '^;; flags:[^;]* ad[ ;]' <<<"$answer"; then
      printf '%s: expected %s with AD\n%s\n' "${question%:*}" "$rcode" "$answer"
      return 1
    fi
    printf '%s: %s, AD\n' "${question%:*}" "$rcode"
  done
}
digests() { awk '!/^;/ { line = ""; for (i = NF - 3; i < NF; i++) line = line $i " "; print line toupper($NF) }' | sort; }
with_dsfromkey() {
  diff <(dnssec-dsfromkey -a SHA-256 -a SHA-384 -f "$signed" "$ZONE" | digests) <(digests <"$ds")
}
bundle=$work/audit.bundle
answers by olga audit export "$bundle" >/dev/null
countersign_verifies() {
  HOME=/nonexistent answers "$work/bin/countersign" audit verify "$bundle" --founding "$founding"
}
script_verifies() { python3 "$here/../softhsm-tests/verify_bundle.py" "$bundle" "$founding"; }
say "What the secondary serves, the DS records, and the ledger, as others see them:"
check ldns-verify-zone "$(version_of ldnsutils)" "every signature and the NSEC3 chain, from the DS" with_ldns
check dnssec-verify "$(version_of bind9-utils)" "the zone is signed whole, by every algorithm" with_bind
check unbound "$(version_of unbound)" "answers, a wildcard and denials validate (AD set)" with_unbound
check dnssec-dsfromkey "$(version_of bind9-utils)" "the DS records that were handed out are those of the KSK" with_dsfromkey
check verify_bundle.py "$(python3 --version 2>&1 | cut -d ' ' -f 2)" \
  "tree, checkpoint, signatures and quorums of the ledger, with ssh-keygen and openssl" script_verifies
check "countersign audit verify" "$("${cli[@]}" --version | cut -d ' ' -f 2)" \
  "the whole ledger, from the founding on, offline" countersign_verifies

# ── results ────────────────────────────────────────────────────────────────────────────────────
write_report() {
  local joined
  joined=$(printf ',\n    %s' "${checks[@]}")
  cat <<JSON
{
  "countersign": $(json "$("${cli[@]}" --version)"),
  "zone": "$ZONE",
  "founding": "$founding",
  "statements": { "ksk": "$ksk", "ds_export": "$export" },
  "all_agree": $([ $agree = yes ] && printf true || printf false),
  "two_users": $two_users,
  "path": "BIND -> XoT, certificates both ways -> countersignd -> countersign-keeper -> SoftHSM -> verified -> XoT, certificates both ways -> BIND",
  "serials": { "primary": $(soa "$primary_dns"), "secondary": $(soa "$secondary_port") },
  "keys": $("${cli[@]}" key list --json || true),
  "hsm": $("${cli[@]}" hsm status --json || true),
  "versions": { "bind9": $(json "$(version_of bind9)"), "softhsm2": $(json "$(version_of softhsm2)") },
  "milliseconds": { "install_and_build": $((built_at - started)), "start_to_served": $((served_at - up_at)) },
  "checks": [${joined#,}
  ]
}
JSON
}
if [ $once = yes ]; then
  cp "$signed" "$anchor" "$bundle" "$dir/"
  write_report >"$dir/report.json"
  [ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID" "$dir"/{signed.zone,anchor.ds,audit.bundle,report.json}
  say "Written: $dir/signed.zone, $dir/anchor.ds, $dir/audit.bundle, $dir/report.json"
  [ $agree = yes ] || die "the verifiers do not agree"
  exit 0
fi

run_cli="$work/bin/countersign --socket $daemon_dir/run/api.sock"
# A shell function for the terminal next door.
cat >"$officers_dir/by" <<SH
# by PERSON COMMAND... is countersign as that person runs it
by() {
  COUNTERSIGN_LEDGER_SOCKET=$work/run/keeper/ledger.sock COUNTERSIGN_AS=\$1 COUNTERSIGN_FOUNDING=$founding \\
    COUNTERSIGN_IDENTITY=$officers_dir/\$1 COUNTERSIGN_PINS=$officers_dir/\$1.pins $work/bin/countersign "\${@:2}"
}
SH
cat <<TXT

Serving $ZONE, serial $(soa "$secondary_port") (the primary's is $(soa "$primary_dns")). All of it is below $work.
Founding $founding

  API on this box   $daemon_dir/run/api.sock
  API by HTTPS      https://127.0.0.1:$signer_api   (certificate $pki/ops.pem, authority $pki/ca.pem)

Try, in another terminal$([ "$two_users" = true ] && printf ', as root'):
  $run_cli zone show $ZONE
  $run_cli key list
  $run_cli hsm status
  # a change at the primary goes through signed
  sed -i 's/ns1 hostmaster 1 /ns1 hostmaster 2 /; \$a hello IN TXT "hello"' $bind_dir/example.zone && kill -HUP ${pids[0]}
  dig @127.0.0.1 -p $secondary_port +dnssec hello.$ZONE TXT
  dig @127.0.0.1 -p $resolver_port +dnssec hello.$ZONE TXT          # AD: validated
  # without the keeper the zone stays up, and a change waits with an alarm; the keeper comes back
  # after $KEEPER_AWAY_S seconds, and the change goes out
  kill $keeper_pid; sed -i 's/ns1 hostmaster 2 /ns1 hostmaster 3 /; \$a late IN TXT "late"' $bind_dir/example.zone && kill -HUP ${pids[0]}
  $run_cli zone show $ZONE
  dig @127.0.0.1 -p $secondary_port +short late.$ZONE TXT
  # without a certificate there is no transfer
  dig @127.0.0.1 -p $signer_xot +tls $ZONE AXFR
  # olga proposes, kay and kim approve what they read (the first word of its hash is asked for)
  source $officers_dir/by
  by olga propose generate-key --zone $ZONE --role ksk
  by kay proposal list
  by kay approve ID
  # one person stops the use of KSKs, two end it
  by kurt freeze --reason "let us see"
  by olga propose thaw
  # what is on record, who did it, and by which rule; and the proof of it, which needs no keeper
  by olga audit log
  by olga audit export /tmp/quickstart.bundle
  by olga audit verify /tmp/quickstart.bundle

Logs are in $work/*.log. Ctrl-C stops everything.
TXT
# From here on we are the keeper's supervisor, and wait for a signal.
while :; do
  if ! alive "$keeper_pid"; then
    say "The keeper has ended; it is started again in $KEEPER_AWAY_S seconds."
    read -rt $KEEPER_AWAY_S <> <(:) || true
    start_keeper
    say "The keeper is back."
  fi
  read -rt 1 <> <(:) || true
done
