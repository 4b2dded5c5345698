// arm64 Image header and start-up of the boot CPU and of secondaries.
// The page table is constant and free of relocations, so the MMU and the caches go on before the first store:
// what the loader wrote through its caches and what this program writes never disagree.

.equ STACK_SIZE, 0x8000

.section .head, "ax"
.global _start
_start:
    b       primary
    .long   0
    .quad   0                       // text_offset
    .quad   __image_size
    .quad   0xa                     // flags: little-endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

primary:
    mov     x20, x0                 // device tree
    bl      mmu_on

    adrp    x0, __image_start       // link base is 0: the load address is the bias
    adrp    x1, __rela_start
    add     x1, x1, :lo12:__rela_start
    adrp    x2, __rela_end
    add     x2, x2, :lo12:__rela_end
1:  cmp     x1, x2
    b.hs    2f
    ldp     x3, x4, [x1], #16       // r_offset, r_info
    ldr     x5, [x1], #8            // r_addend
    cmp     w4, #1027               // R_AARCH64_RELATIVE
    b.ne    1b
    add     x5, x5, x0
    str     x5, [x0, x3]
    b       1b

2:  adrp    x1, __bss_start
    add     x1, x1, :lo12:__bss_start
    adrp    x2, __bss_end
    add     x2, x2, :lo12:__bss_end
3:  cmp     x1, x2
    b.hs    4f
    stp     xzr, xzr, [x1], #16
    b       3b

4:  mov     x0, #0
    bl      stack_of
    mov     x0, x20
    bl      rust_primary
    b       park

.global secondary_start
secondary_start:
    mov     x20, x0                 // context: the CPU's number
    bl      mmu_on
    mov     x0, x20
    bl      stack_of
    mov     x0, x20
    bl      rust_secondary
park:
    wfi
    b       park

// In: x0 = CPU number. Sets sp and the vector base.
stack_of:
    adrp    x1, __stacks
    add     x1, x1, :lo12:__stacks
    mov     x2, #STACK_SIZE
    madd    x1, x0, x2, x1
    add     sp, x1, x2
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el1, x1
    isb
    ret

// MMU, caches and FP/SIMD on. Clobbers x0-x3.
mmu_on:
    adrp    x0, IDENTITY_MAP
    add     x0, x0, :lo12:IDENTITY_MAP
    msr     ttbr0_el1, x0
    movz    x0, #0xff00             // MAIR: 0 Device-nGnRnE, 1 Normal write-back
    msr     mair_el1, x0
    movz    x0, #0x3519             // T0SZ=25 (39 bit), inner and outer write-back, inner shareable, 4 KiB
    movk    x0, #0x0080, lsl #16    // EPD1: nothing in the upper half
    mrs     x1, id_aa64mmfr0_el1
    and     x1, x1, #7              // PARange up to 48 bits has the encoding of IPS
    cmp     x1, #5
    mov     x2, #5
    csel    x1, x1, x2, ls
    orr     x0, x0, x1, lsl #32
    msr     tcr_el1, x0
    movz    x0, #0x0333, lsl #16    // FP/SIMD not trapped; SVE and SME not by EL1 either, where they are
    msr     cpacr_el1, x0
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    movz    x0, #0x1805             // M, C, I, and RES1 bit 11
    movk    x0, #0x30d0, lsl #16
    msr     sctlr_el1, x0
    isb
    ret
