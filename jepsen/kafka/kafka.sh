#!/usr/bin/env bash
# Apache Kafka from Maven alone: fetches the broker once, and runs single-node KRaft brokers from it.
#
#   kafka.sh fetch                              fill the cache (needs java 17 and mvn; about 130 MB)
#   kafka.sh run PORT DIR [CONTROLLER_PORT]     run a broker on 127.0.0.1:PORT with its data in DIR, in the foreground
#
# DIR is formatted when it is empty and taken as it is otherwise. The process becomes the broker: SIGTERM stops it
# cleanly, kill -9 crashes it. The cache is $WATERSHED_KAFKA_CACHE, by default ~/.cache/watershed-kafka. Further
# server properties come from $KAFKA_PROPERTIES (lines), further JVM options from $KAFKA_JVM.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${WATERSHED_KAFKA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/watershed-kafka}
# Another pom.xml is another cache; so is another Java, as class archives belong to one.
key=$( (cat "$here/pom.xml"; java -version 2>&1) | cksum | cut -d' ' -f1)
libs=$cache/$key/libs
archive=$cache/$key/classes.jsa
small=(-Xmx384m -Xss512k -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto
  "-Dlog4j2.configurationFile=$here/log4j2.properties")

classpath() { printf '%s:' "$libs"/*.jar; }

fetch() {
  mkdir -p "$cache/$key"
  exec 9>"$cache/$key/lock"
  if command -v flock >/dev/null; then flock 9; fi
  if [[ ! -e $libs ]]; then
    echo "fetching Apache Kafka into $cache/$key" >&2
    rm -rf "$libs.part"
    mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
      "-DoutputDirectory=$libs.part" >&2
    mv "$libs.part" "$libs"
  fi
  if [[ ! -e $archive ]]; then train; fi
  exec 9>&-
}

# train starts a broker once and keeps an archive of the classes that it loaded: later ones start in half the time.
train() {
  local dir port=$((20000 + RANDOM % 5000))
  dir=$(mktemp -d)
  format "$port" "$dir" $((port + 1)) 9>&-
  java "${small[@]}" "-XX:ArchiveClassesAtExit=$archive.part" -cp "$(classpath)" kafka.Kafka "$dir/server.properties" \
    >"$dir/log" 2>&1 9>&- &
  local pid=$!
  for _ in $(seq 300); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    sleep 0.2
  done
  kill "$pid" && wait "$pid" || true # a broker stopped by SIGTERM exits 143
  if [[ ! -e $archive.part ]]; then
    echo "the broker did not start:" >&2
    cat "$dir/log" >&2
    exit 1
  fi
  mv "$archive.part" "$archive"
  rm -rf "$dir"
}

# format writes DIR/server.properties and formats DIR/data, unless that was done before.
format() {
  local port=$1 dir=$2 controller=$3
  if [[ -e $dir/formatted ]]; then return; fi
  mkdir -p "$dir"
  rm -rf "$dir/data"
  cat >"$dir/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=200
broker.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
file.delete.delay.ms=1000
${KAFKA_PROPERTIES:-}
EOF
  local id
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
  java "${small[@]}" -cp "$(classpath)" kafka.tools.StorageTool format -t "${id/#-/A}" -c "$dir/server.properties" \
    --standalone >&2
  touch "$dir/formatted"
}

run() {
  local port=$1 dir=$2 controller=${3:-$(($1 + 1))}
  fetch
  format "$port" "$dir" "$controller"
  # shellcheck disable=SC2086 # KAFKA_JVM is a list
  exec java "${small[@]}" "-XX:SharedArchiveFile=$archive" ${KAFKA_JVM:-} -cp "$(classpath)" kafka.Kafka \
    "$dir/server.properties"
}

case "${1:-}" in
fetch) fetch ;;
run)
  if (($# < 3)); then
    echo "usage: kafka.sh run PORT DIR [CONTROLLER_PORT]" >&2
    exit 2
  fi
  run "${@:2}"
  ;;
*)
  sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
  ;;
esac
