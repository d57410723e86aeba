#!/bin/sh
# As the packages feed's CI calls it, in an emulated router: test.sh PACKAGE VERSION

case "$1" in
modem-upgrader-agent)
	modem-upgrader-agent --version | grep -F "$2"
	;;
esac
