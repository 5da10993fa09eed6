// What std::call_once of GCC's headers asks of libstdc++ (its mutex.cc): two variables of each thread and what calls by
// them. The objects of ICU's archive are not made for shared objects and want the variables in the static block of
// threads' memory. In libstdc++.so they could not be there once a program has loaded that library by itself, as Python
// does for PyTorch: "cannot allocate memory in static TLS block". These 16 bytes are the extension's own.
__thread void* once_callable __asm__("_ZSt15__once_callable");
__thread void (*once_call)(void) __asm__("_ZSt11__once_call");

void __once_proxy(void) {
    once_call();
}
