/* In place of libunwind, which the standard library wants for backtraces and unwinding: with `panic = "abort"`
 * nothing is unwound, the binary has no tables to do it with, and a backtrace without them is empty. What is
 * not called is not in the binary; it is here so that the linker looks for nothing in libunwind. */

typedef unsigned long word;

void abort(void) __attribute__((noreturn));

/* "End of stack": no frame is shown. */
int _Unwind_Backtrace(void *each, void *data) { (void)each; (void)data; return 5; }

/* Of frames, of which there are none. */
word _Unwind_GetIP(void *frame) { (void)frame; return 0; }
word _Unwind_GetIPInfo(void *frame, int *before) { (void)frame; *before = 0; return 0; }
word _Unwind_GetCFA(void *frame) { (void)frame; return 0; }
word _Unwind_GetGR(void *frame, int number) { (void)frame; (void)number; return 0; }
word _Unwind_GetRegionStart(void *frame) { (void)frame; return 0; }
word _Unwind_GetTextRelBase(void *frame) { (void)frame; return 0; }
word _Unwind_GetDataRelBase(void *frame) { (void)frame; return 0; }
void *_Unwind_GetLanguageSpecificData(void *frame) { (void)frame; return 0; }
void *_Unwind_FindEnclosingFunction(void *address) { (void)address; return 0; }

/* Of unwinding, which never begins. */
void _Unwind_SetGR(void *frame, int number, word value) { (void)frame; (void)number; (void)value; abort(); }
void _Unwind_SetIP(void *frame, word value) { (void)frame; (void)value; abort(); }
int _Unwind_RaiseException(void *exception) { (void)exception; abort(); }
void _Unwind_Resume(void *exception) { (void)exception; abort(); }
void _Unwind_DeleteException(void *exception) { (void)exception; abort(); }
