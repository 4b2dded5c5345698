// Entry of the image: arm64 boot protocol (Linux Documentation/arch/arm64/booting.rst).
// At entry: EL2, MMU off, interrupts masked, x0 = physical address of the DTB.

.section .head.text, "ax"
.global _start
_start:
    b       primary                     // code0
    .long   0                           // code1
    .quad   0                           // text_offset
    .quad   __image_size                // image_size: with .bss and the frame pool
    .quad   0xa                         // flags: little-endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

primary:
    msr     daifset, #0xf
    mov     x19, x0
    // Drop what a boot loader's caches hold of the image, before the first store with the MMU off:
    // a dirty or stale line must not surface when the caches come on (DDI 0487 B2.10).
    adrp    x0, __image_start
    adrp    x1, __image_end
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4             // DminLine: log2 of words
    mov     x3, #4
    lsl     x3, x3, x2
1:  dc      civac, x0
    add     x0, x0, x3
    cmp     x0, x1
    b.lo    1b
    dsb     sy

    adrp    x0, __bss_start
    adrp    x1, __bss_end
2:  stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    2b

    // Apply the R_AARCH64_RELATIVE relocations: *(base + offset) = base + addend.
    adrp    x9, __image_start
    adrp    x0, __rela_start
    add     x0, x0, :lo12:__rela_start
    adrp    x1, __rela_end
    add     x1, x1, :lo12:__rela_end
3:  cmp     x0, x1
    b.hs    4f
    ldp     x2, x3, [x0], #16
    ldr     x4, [x0], #8
    cmp     w3, #1027                   // R_AARCH64_RELATIVE; ABS symbols stay as linked
    b.ne    3b
    add     x4, x4, x9
    str     x4, [x9, x2]
    b       3b

4:  mrs     x0, CurrentEL
    cmp     x0, #(2 << 2)
    b.ne    wrong_level
    msr     spsel, #1
    adrp    x0, __boot_stack_top
    mov     sp, x0
    mov     x29, xzr
    mov     x30, xzr
    adrp    x1, el2_vectors
    add     x1, x1, :lo12:el2_vectors
    msr     vbar_el2, x1
    adrp    x1, boot_block
    add     x1, x1, :lo12:boot_block
    adrp    x2, __boot_emergency_top
    str     x2, [x1]
    msr     tpidr_el2, x1
    isb
    mov     x0, x19
    bl      boot_primary
    b       halt

wrong_level:
    // Without EL2 there is nothing to be done but to say so. Rust code that runs here may use no EL2 register.
    adrp    x0, __boot_stack_top
    mov     sp, x0
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    bl      boot_wrong_level
halt:
    wfi
    b       halt

// Secondary CPUs, by PSCI CPU_ON: x0 = physical address of a SecondaryBoot record.
.global secondary_start
secondary_start:
    msr     daifset, #0xf
    msr     spsel, #1
    mov     x19, x0
    mov     x7, #(1 << 31)              // HCR_EL2.RW alone: E2H decides what the registers below mean
    msr     hcr_el2, x7
    isb
    ldp     x1, x2, [x19, #0]           // ttbr0, tcr
    ldp     x3, x4, [x19, #16]          // mair, sctlr
    ldp     x5, x6, [x19, #32]          // stack top, per-CPU block
    msr     mair_el2, x3
    msr     tcr_el2, x2
    msr     ttbr0_el2, x1
    adrp    x7, el2_vectors
    add     x7, x7, :lo12:el2_vectors
    msr     vbar_el2, x7
    msr     tpidr_el2, x6
    isb
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el2, x4
    isb
    mov     sp, x5
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x6
    bl      boot_secondary
    b       halt

// Stands in for the boot CPU's block until the real one exists: only its first word is ever read.
.section .bss.boot_block, "aw", %nobits
.balign 8
boot_block:
    .skip   8
