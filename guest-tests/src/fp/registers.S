// All 32 vector registers at once. The compiled code has no use of them (soft-float target).

.arch_extension fp
.arch_extension simd
.section .text.fp, "ax"

.altmacro
.macro FILL_ONE n
    dup     v\n\().2d, x0
    add     x1, x0, #\n
    mov     v\n\().d[1], x1
.endm
.macro CHECK_HALF n
    mov     x2, v\n\().d[0]
    cmp     x2, x1
    cset    x3, ne
    mov     x2, v\n\().d[1]
    add     x4, x1, #\n
    cmp     x2, x4
    cinc    x3, x3, ne
    add     x0, x0, x3
.endm

// In: x0 = seed.
.global fp_fill
fp_fill:
    .set    i, 0
    .rept   32
    FILL_ONE %i
    .set    i, i + 1
    .endr
    ret

// In: x0 = seed. Out: x0 = 64-bit halves that are not what fp_fill left.
.global fp_check
fp_check:
    mov     x1, x0
    mov     x0, #0
    .set    i, 0
    .rept   32
    CHECK_HALF %i
    .set    i, i + 1
    .endr
    ret
.noaltmacro
