/* zapi.h - how a public function of the core is declared. */
#ifndef ZAPI_H
#define ZAPI_H

/* ZMALLOC_SHARED is defined while the shared library itself is built: only what is marked is seen
 * outside. Static libraries and sources compiled into another program need nothing. */
#if defined(_WIN32) && defined(ZMALLOC_SHARED)
#define ZMALLOC_API __declspec(dllexport)
#elif defined(__GNUC__) && defined(ZMALLOC_SHARED)
#define ZMALLOC_API __attribute__((visibility("default")))
#else
#define ZMALLOC_API
#endif

#endif
