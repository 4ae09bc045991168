# entanglement: one PGXS makefile, as every PostgreSQL extension has.
#
#   make                     build with the pg_config in PATH
#   make PG_CONFIG=...       ... or with another one
#   make install             into that server's directories
#   make installcheck        regression and isolation tests against a running
#                            server with shared_preload_libraries = 'entanglement'
#                            (as a superuser; see CONTRIBUTING.md)
#   make unit                tests of the pure C rules, no server needed
#   make tapcheck            multi-node tests; they start their own servers
#   make strict              build with every warning an error
#   make house               the rules of the house (CONTRIBUTING.md)
#   make dist                a release archive
#
# New files in src/*/, worker/ and sql/install/ are found by themselves.

EXTENSION = entanglement
MODULE_big = entanglement
VERSION_SQL = 0.1

PG_CONFIG ?= pg_config
TOP := $(or $(VPATH),$(patsubst %/,%,$(dir $(firstword $(MAKEFILE_LIST)))))

SOURCES := $(sort $(wildcard $(TOP)/src/*/*.c $(TOP)/src/*.c $(TOP)/worker/*.c))
OBJS := $(patsubst $(TOP)/%.c,%.o,$(SOURCES))

# The installation script is assembled from its parts, in order of name;
# upgrade scripts are written by hand.
INSTALL_SQL := $(sort $(wildcard $(TOP)/sql/install/*.sql))
DATA_built = sql/$(EXTENSION)--$(VERSION_SQL).sql
DATA := $(patsubst $(TOP)/%,%,$(wildcard $(TOP)/sql/$(EXTENSION)--*--*.sql))

PG_CPPFLAGS = -I$(TOP)/src -I$(TOP) -I$(shell $(PG_CONFIG) --includedir)
SHLIB_LINK_INTERNAL = $(libpq)
SHLIB_LINK = -lssl -lcrypto -lzstd

# PostgreSQL's own headers and callback signatures are not clean under -Wextra
# in these two respects; all else is.
override PG_CFLAGS += -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-declaration-after-statement
ifneq (,$(findstring clang,$(shell $(CC) --version 2>/dev/null)))
# Where the server was built with gcc, its options and the name it has for
# printf's checks are gcc's.
override PG_CFLAGS += -Wno-unknown-warning-option \
	-Wno-ignored-optimization-argument -Dgnu_printf=__printf__
endif
ifdef WERROR
override PG_CFLAGS += -Werror
endif

# Bitcode lets queries inline C functions; nothing of ours would gain, and a
# machine without the server's very clang could not build. Ask for it with
# make with_llvm=yes.
ifneq ($(origin with_llvm),command line)
override with_llvm := no
endif

# Tests. Their names sort in the order they run; sql/entanglement--*.sql is
# no test. Each starts with the extension in place.
REGRESS := $(filter-out $(EXTENSION)--%,$(sort \
	$(basename $(notdir $(wildcard $(TOP)/sql/*.sql)))))
REGRESS_OPTS = --load-extension=$(EXTENSION)
ISOLATION := $(sort $(basename $(notdir $(wildcard $(TOP)/specs/*.spec))))
ISOLATION_OPTS = --load-extension=$(EXTENSION)
ENCODING = UTF8
NO_LOCALE = 1

BUILD_FLAGS = .build-flags
EXTRA_CLEAN = $(OBJS:.o=.d) $(BUILD_FLAGS) $(wildcard $(EXTENSION)-*.zip)

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# A changed header rebuilds what includes it; changed options or a source that
# has gone rebuild everything.
$(OBJS): %.o: %.c $(BUILD_FLAGS)
	@$(MKDIR_P) $(@D)
	$(COMPILE.c) -MMD -MP -MF $(@:.o=.d) -o $@ $<

-include $(OBJS:.o=.d)

BUILD_FLAGS_NOW = $(CC) $(CFLAGS) $(CPPFLAGS) $(SHLIB_LINK) $(OBJS)
$(BUILD_FLAGS): FORCE
	@echo '$(subst ','\'',$(BUILD_FLAGS_NOW))' | cmp -s - $@ || \
		echo '$(subst ','\'',$(BUILD_FLAGS_NOW))' > $@

$(shlib): $(BUILD_FLAGS)

$(DATA_built): $(INSTALL_SQL) $(TOP)/Makefile
	@$(MKDIR_P) $(@D)
	cat $(INSTALL_SQL) > $@.tmp && mv $@.tmp $@

.PHONY: FORCE strict unit tapcheck house dist

strict:
	$(MAKE) all WERROR=1

unit:
	$(MAKE) -C $(TOP)/test check CC='$(CC)'

tapcheck:
	$(prove_installcheck)

house: all
	$(TOP)/scripts/check-house --library $(CURDIR)/$(shlib)

DIST = $(EXTENSION)-$(shell sed -n 's/.*"version": "\(.*\)",$$/\1/p' META.json | head -n 1)
dist: $(DATA_built)
	git archive --format=zip --prefix=$(DIST)/sql/ \
		--add-file=$(DATA_built) --prefix=$(DIST)/ -o $(DIST).zip HEAD
