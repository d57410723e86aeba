# Stands in for the packages feed's rust-package.mk: the binary is built already.

RUST_ARCH_DEPENDS:=@(aarch64||arm||mipsel)

define RustBinPackage
endef
