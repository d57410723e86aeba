# Stands in for OpenWrt's /lib/functions/procd.sh: the lock that it takes for every action of every script that
# uses procd, by its descriptor.

procd_lock() {
	exec 1000> "/tmp/procd_$1.lock"
	flock 1000 2> /dev/null
}
