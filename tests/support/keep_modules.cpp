// Linked into programs with a window where a sanitizer watches: modules stay loaded to the end. A driver that is unloaded
// takes the pointers to what it keeps for good with it, which LeakSanitizer then reports from a module without a name.
extern "C" int dlclose(void*) { return 0; }
