// EL2's exception vectors (DDI 0487 D1.3.1) and the way back into the guest.
// A trap frame is 256 bytes on the CPU's stack: x0 to x30, one spare.

.macro save_x4_to_x30
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    str     x30, [sp, #240]
.endm

.macro lower kind
    .balign 128
    sub     sp, sp, #256
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    adrp    x0, {hardening}
    ldr     w0, [x0, #:lo12:{hardening}]
    cbz     w0, 1f
    smc     #0                          // the branch predictor workaround, before the first indirect branch
1:  mov     x1, #\kind
    b       guest_exit
.endm

// A fault of the hypervisor itself is never returned from, so the guest's TPIDRRO_EL0 serves as scratch, and the
// dump runs on the CPU's emergency stack (first word of the per-CPU block): the faulting stack may have run over.
.macro own kind
    .balign 128
    msr     tpidrro_el0, x0
    mrs     x0, tpidr_el2
    ldr     x0, [x0]
    sub     x0, x0, #256
    str     x1, [x0, #8]
    mov     x1, sp
    str     x1, [x0, #248]              // the spare slot holds the stack pointer
    mrs     x1, tpidrro_el0
    str     x1, [x0, #0]
    mov     sp, x0
    mov     x1, #\kind
    b       own_exception
.endm

.section .text.vectors, "ax"
.balign 2048
.global el2_vectors
el2_vectors:
    own     0                           // current EL, SP_EL0: never used
    own     1
    own     2
    own     3
    own     4                           // current EL, SP_EL2: a fault of the hypervisor
    own     5
    own     6
    own     7
    lower   0                           // a guest in AArch64: synchronous
    lower   1                           // IRQ
    lower   2                           // FIQ
    lower   3                           // SError
    lower   4                           // a guest in AArch32
    lower   5
    lower   6
    lower   7

.balign 128
guest_exit:
    save_x4_to_x30
    mov     x0, sp
    mov     x29, xzr
    mov     x30, xzr
    bl      {exit}
.global guest_enter
guest_enter:
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    ldr     x30, [sp, #240]
    ldp     x0, x1, [sp, #0]
    add     sp, sp, #256
    eret
    dsb     nsh                         // nothing past the eret is speculated on
    isb

own_exception:
    stp     x2, x3, [sp, #16]
    save_x4_to_x30
    mov     x0, sp
    bl      {own}

// run_guest(frame): drops this CPU's stack to its top, where the first trap frame stands, and enters.
.global run_guest
run_guest:
    mov     sp, x0
    b       guest_enter
