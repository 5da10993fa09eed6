/* Debian compiles ICU's archives for programs: in a shared object these two names of the C library cannot be reached
   from them. Only ICU's time zones would ask, which breaks of sentences and words have nothing to do with. */
__attribute__((visibility("hidden"))) long __timezone;
__attribute__((visibility("hidden"))) char* tzname[2];
