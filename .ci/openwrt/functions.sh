# Stands in for OpenWrt's /lib/functions.sh, as far as package and init scripts of one package need it.

include() {
	local file
	for file in $(ls "$1"/*.sh 2> /dev/null); do . "$file"; done
}

append() { eval "$1=\"\${$1:+\$$1 }$2\""; }

# Each runs a package's own script in a subshell, and looks at its status only at the end. By opkg it is
# called with the script's name, by apk with none: apk has no such own script beside the list.
default_prerm() {
	local name status=0 list
	name="${pkgname:-$(basename "${1%.*}")}"
	list="/usr/lib/opkg/info/$name.list"
	[ -f "$list" ] || list="/lib/apk/packages/$name.list"
	if [ -f "/usr/lib/opkg/info/$name.prerm-pkg" ]; then
		(. "/usr/lib/opkg/info/$name.prerm-pkg")
		status=$?
	fi
	for script in $(grep '^/etc/init.d/' "$list"); do
		"$script" disable
		"$script" stop
	done
	return $status
}

default_postinst() {
	local name status=0
	name="$(basename "${1%.*}")"
	for script in $(grep '^/etc/uci-defaults/' "/usr/lib/opkg/info/$name.list"); do
		([ -f "$script" ] && cd "$(dirname "$script")" && . "$script") && rm -f "$script"
	done
	if [ -f "/usr/lib/opkg/info/$name.postinst-pkg" ]; then
		(. "/usr/lib/opkg/info/$name.postinst-pkg")
		status=$?
	fi
	for script in $(grep '^/etc/init.d/' "/usr/lib/opkg/info/$name.list"); do
		"$script" enable
		"$script" start
	done
	return $status
}
