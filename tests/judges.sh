#!/bin/sh
# Install the third parties that judge knarr in the tests: Debian's etcd, containerd, skopeo and so on.
# Elsewhere than on Debian it only says which are missing; the tests that need them then skip with the reason.
set -eu

wanted="etcd:etcd-server etcdctl:etcd-client containerd:containerd runc:runc crun:crun skopeo:skopeo umoci:umoci buildah:buildah
        haproxy:haproxy wrk:wrk nginx:nginx-light nft:nftables ip:iproute2"
packages=""
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || packages="$packages ${pair#*:}"
done
[ -d /usr/lib/cni ] || packages="$packages containernetworking-plugins"
[ -n "$packages" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
    echo "tests: these judges are missing, the tests that need them will skip:$packages"
    exit 0
fi
# The packages bring services; none of them may start here.
guard=/usr/sbin/policy-rc.d
if [ ! -e $guard ]; then
    trap 'rm -f $guard' EXIT
    printf '#!/bin/sh\nexit 101\n' >$guard
    chmod +x $guard
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $packages >/dev/null
