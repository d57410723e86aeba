# Stands in for OpenWrt's package.mk: instead of building, it writes what ../Makefile says of a package
# into $(OUT): the files into data/, the rest into info/.

# `+name` is a dependency, `@symbol` a condition of the menu.
dependencies=libc $(patsubst +%,%,$(filter-out @%,$(1)))

define BuildPackage
$(eval $(Package/$(1)))
export INFO_name=$(1)
export INFO_version=$(PKG_VERSION)
export INFO_release=$(PKG_RELEASE)
export INFO_depends=$$(call dependencies,$$(DEPENDS))
export INFO_section=$$(SECTION)
export INFO_title=$$(TITLE)
export INFO_url=$$(URL)
export INFO_license=$$(PKG_LICENSE)
export INFO_license_files=$$(PKG_LICENSE_FILES)
export INFO_maintainer=$$(PKG_MAINTAINER)
export INFO_conffiles=$$(Package/$(1)/conffiles)
export INFO_description=$$(Package/$(1)/description)
export INFO_postinst=$$(Package/$(1)/postinst)
export INFO_prerm=$$(Package/$(1)/prerm)

.PHONY: package
package:
	mkdir -p $$(OUT)/data $$(OUT)/info
$(call Package/$(1)/install,$$(OUT)/data)
	@for field in name version release depends section title url license license_files maintainer \
		conffiles description postinst prerm; do printenv "INFO_$$$$field" > "$$(OUT)/info/$$$$field" || true; done
endef
