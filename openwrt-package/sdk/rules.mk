# Stands in for OpenWrt's rules.mk, as far as ../Makefile needs it: see ../package.sh.

INSTALL_DIR:=install -d -m0755
INSTALL_BIN:=install -m0755
INSTALL_DATA:=install -m0644
INSTALL_CONF:=install -m0600
LN:=ln -sf
