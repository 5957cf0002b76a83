#!/bin/sh
# Installs what the tests start processes of, as Debian packages: Redis, RabbitMQ, Chromium and
# the reverse proxies of docs/how-to/proxies.md.
set -eu

packages=""
command -v redis-server > /dev/null || packages="$packages redis-server"
command -v rabbitmq-server > /dev/null || [ -x /usr/sbin/rabbitmq-server ] ||
    packages="$packages rabbitmq-server"
command -v chromium > /dev/null || packages="$packages chromium"
for proxy in nginx haproxy caddy; do
    command -v "$proxy" > /dev/null || [ -x "/usr/sbin/$proxy" ] || packages="$packages $proxy"
done
[ -n "$packages" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
    echo "The tests need programs that are not installed here:$packages." >&2
    echo "On Debian: sudo apt-get install$packages" >&2
    echo "Elsewhere: Redis 7 or newer, RabbitMQ 3.10 or newer, a chromium, nginx, HAProxy and Caddy, on the PATH." >&2
    exit 1
fi

# The tests start their own on free ports; none of the machine's own is wanted.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
lock_timeout=600 # seconds that another apt may take, such as the unattended upgrade after a boot

# apt-get waits for the locks of dpkg, but never for that of the package lists.
update_lists() {
    deadline=$(($(date +%s) + lock_timeout))
    until output=$(apt-get update -q 2>&1); do
        case $output in
            *"Could not get lock"*) [ "$(date +%s)" -lt "$deadline" ] ;;
            *) false ;;
        esac || { echo "$output" >&2; return 1; }
        sleep 2
    done
}

update_lists
# shellcheck disable=SC2086
apt-get -o "DPkg::Lock::Timeout=$lock_timeout" install -q -y --no-install-recommends $packages
