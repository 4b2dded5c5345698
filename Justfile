# The front door. What each recipe does is in `tools`.

set positional-arguments
set no-exit-message

tools := "cargo run --quiet --package bulkhead-tools --"

# Lists the recipes.
default:
    @just --list

# Installs and downloads what is missing; --dry-run only says what.
setup *arguments:
    @{{tools}} setup "$@"

# Builds the hypervisor's flat image.
build:
    @{{tools}} build

# Boots the default bundle here; `-- ARGUMENTS` go to QEMU.
qemu *arguments:
    @{{tools}} qemu "$@"

# Prints the command line of `qemu`.
qemu-cmd *arguments:
    @{{tools}} qemu-cmd "$@"

# Packs a manifest into a bundle.
pack *arguments:
    @{{tools}} pack "$@"

# Prints every problem of a manifest.
check-manifest *arguments:
    @{{tools}} check-manifest "$@"

# Boots Linux guests headless and moves traffic: all runs, or those whose name contains NAME.
smoke *name:
    @{{tools}} smoke "$@"

# Runs the bare-metal guest scenarios, or those whose name contains NAME.
guest *name:
    @{{tools}} guest "$@"

# Runs the host tests.
unit:
    @{{tools}} unit

# Runs all tests.
test:
    @{{tools}} test

# Measures, and prints figures.
bench *name:
    @{{tools}} bench "$@"

# Checks format, lints and our own rules.
lint:
    @{{tools}} lint

# Removes what was built.
clean *arguments:
    @{{tools}} clean "$@"
