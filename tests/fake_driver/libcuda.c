// A stand-in for the CUDA driver: the functions that src/cuda/driver uses, on the host's memory, so that what Rust does with them
// and with their errors is tested where there is no GPU. Work is done at once; a kernel adds one to the u32 that the first address
// of its parameters names.
//
//   FAKE_CUDA_FAIL=cuLaunchKernel:719   this function returns this code
//   FAKE_CUDA_KERNELS=any   modules have kernels of every name, not only of those that begin with "fake"
//   FAKE_CUDA_VERSION, _DEVICES, _COMPUTE, _MEMORY   what the driver reports: 12040, 1, 80, 1048576
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Code;
typedef struct { int kind; uint32_t* target; int nodes; } Object;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_BINARY = 209, NOT_FOUND = 500 };
enum { STREAM = 1, EVENT, GRAPH, MODULE, FUNCTION };
enum { PARAMS = 24 };

static int live; // objects and allocations that were not given back
static int created; // allocations and streams that were ever made
static size_t used;
static _Thread_local void* current; // the context of a thread
static Object* capturing; // the graph that launches go into
static int context, function = FUNCTION;
static int most_shared = 48 * 1024;

int fake_live(void) { return live; }
int fake_created(void) { return created; }

static long setting(const char* name, long otherwise) {
    const char* value = getenv(name);
    return value ? strtol(value, NULL, 10) : otherwise;
}

static Code failing(const char* name) {
    const char* spec = getenv("FAKE_CUDA_FAIL");
    size_t length = strlen(name);
    if (!spec || strncmp(spec, name, length) || spec[length] != ':') return SUCCESS;
    return atoi(spec + length + 1);
}

#define ENTER do { Code code = failing(__func__); if (code) return code; } while (0)
#define NEEDS(condition) do { if (!(condition)) return INVALID_VALUE; } while (0)
#define BOUND NEEDS(current == &context)

static Object* make(int kind) {
    Object* object = calloc(1, sizeof *object);
    object->kind = kind;
    live++;
    return object;
}

static Code unmake(Object* object, int kind) {
    NEEDS(object && object->kind == kind);
    object->kind = 0;
    free(object);
    live--;
    return SUCCESS;
}

// What there is
Code cuInit(unsigned flags) { ENTER; return flags ? INVALID_VALUE : SUCCESS; }
Code cuDriverGetVersion(int* version) { ENTER; *version = (int)setting("FAKE_CUDA_VERSION", 12040); return SUCCESS; }
Code cuDeviceGetCount(int* count) { ENTER; *count = (int)setting("FAKE_CUDA_DEVICES", 1); return SUCCESS; }
Code cuDeviceGet(int* device, int ordinal) { ENTER; *device = ordinal; return SUCCESS; }
Code cuDeviceGetName(char* name, int length, int device) {
    ENTER;
    snprintf(name, (size_t)length, "Fake %d", device);
    return SUCCESS;
}
Code cuDeviceTotalMem_v2(size_t* bytes, int device) {
    ENTER;
    (void)device;
    *bytes = (size_t)setting("FAKE_CUDA_MEMORY", 1 << 20);
    return SUCCESS;
}
Code cuDeviceGetAttribute(int* value, int attribute, int device) {
    ENTER;
    (void)device;
    int compute = (int)setting("FAKE_CUDA_COMPUTE", 80);
    switch (attribute) {
    case 75: *value = compute / 10; return SUCCESS;
    case 76: *value = compute % 10; return SUCCESS;
    case 13: *value = 1410000; return SUCCESS;     // clock, kHz
    case 16: *value = 108; return SUCCESS;         // multiprocessors
    case 36: *value = 1593000; return SUCCESS;     // clock of the memory, kHz
    case 37: *value = 5120; return SUCCESS;        // width of its bus, bits
    case 97: *value = 163 * 1024; return SUCCESS;  // shared memory of a block, when asked for
    default: *value = 1; return SUCCESS;
    }
}
Code cuGetErrorString(Code code, const char** words) {
    *words = code == 719 ? "unspecified launch failure" : "an error";
    return SUCCESS;
}

// Context
Code cuDevicePrimaryCtxRetain(void** to, int device) { ENTER; (void)device; *to = &context; live++; return SUCCESS; }
Code cuDevicePrimaryCtxRelease_v2(int device) { ENTER; (void)device; live--; return SUCCESS; }
Code cuCtxGetCurrent(void** to) { ENTER; *to = current; return SUCCESS; }
Code cuCtxSetCurrent(void* to) { ENTER; current = to; return SUCCESS; }
Code cuCtxSynchronize(void) { ENTER; BOUND; return SUCCESS; }

// Memory: the size stands in front, so that it can be given back.
static Code take(void** to, size_t bytes) {
    BOUND;
    NEEDS(bytes);
    if (used + bytes > (size_t)setting("FAKE_CUDA_MEMORY", 1 << 20)) return OUT_OF_MEMORY;
    size_t* block = malloc(bytes + 16);
    block[0] = bytes;
    used += bytes;
    live++;
    created++;
    *to = (char*)block + 16;
    return SUCCESS;
}
static Code give(void* pointer) {
    BOUND;
    NEEDS(pointer);
    size_t* block = (size_t*)((char*)pointer - 16);
    used -= block[0];
    live--;
    free(block);
    return SUCCESS;
}
Code cuMemGetInfo_v2(size_t* unused, size_t* all) {
    ENTER;
    BOUND;
    *all = (size_t)setting("FAKE_CUDA_MEMORY", 1 << 20);
    *unused = *all - used;
    return SUCCESS;
}
Code cuMemAlloc_v2(uint64_t* to, size_t bytes) { ENTER; return take((void**)to, bytes); }
Code cuMemFree_v2(uint64_t address) { ENTER; return give((void*)address); }
Code cuMemHostAlloc(void** to, size_t bytes, unsigned flags) { ENTER; (void)flags; return take(to, bytes); }
Code cuMemFreeHost(void* pointer) { ENTER; return give(pointer); }
Code cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Object* stream) {
    ENTER;
    BOUND;
    NEEDS(stream->kind == STREAM);
    memcpy((void*)to, from, bytes);
    return SUCCESS;
}
Code cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Object* stream) {
    ENTER;
    BOUND;
    NEEDS(stream->kind == STREAM);
    memcpy(to, (void*)from, bytes);
    return SUCCESS;
}
Code cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Object* stream) {
    ENTER;
    BOUND;
    NEEDS(stream->kind == STREAM && (to + bytes <= from || from + bytes <= to));
    memcpy((void*)to, (void*)from, bytes);
    return SUCCESS;
}
Code cuMemsetD8Async(uint64_t to, unsigned char byte, size_t bytes, Object* stream) {
    ENTER;
    BOUND;
    NEEDS(stream->kind == STREAM);
    memset((void*)to, byte, bytes);
    return SUCCESS;
}

// Streams and events
Code cuStreamCreate(Object** to, unsigned flags) { ENTER; BOUND; NEEDS(flags == 1); *to = make(STREAM); created++; return SUCCESS; }
Code cuStreamDestroy_v2(Object* stream) { ENTER; BOUND; return unmake(stream, STREAM); }
Code cuStreamSynchronize(Object* stream) { ENTER; BOUND; NEEDS(stream->kind == STREAM); return SUCCESS; }
Code cuStreamWaitEvent(Object* stream, Object* event, unsigned flags) {
    ENTER;
    BOUND;
    NEEDS(stream->kind == STREAM && event->kind == EVENT && !flags);
    return SUCCESS;
}
Code cuEventCreate(Object** to, unsigned flags) { ENTER; BOUND; NEEDS(!flags); *to = make(EVENT); return SUCCESS; }
Code cuEventDestroy_v2(Object* event) { ENTER; BOUND; return unmake(event, EVENT); }
Code cuEventRecord(Object* event, Object* stream) {
    ENTER;
    BOUND;
    NEEDS(stream->kind == STREAM && event->kind == EVENT);
    return SUCCESS;
}
Code cuEventSynchronize(Object* event) { ENTER; BOUND; NEEDS(event->kind == EVENT); return SUCCESS; }
Code cuEventElapsedTime(float* milliseconds, Object* from, Object* to) {
    ENTER;
    BOUND;
    NEEDS(from->kind == EVENT && to->kind == EVENT);
    *milliseconds = 0.5f;
    return SUCCESS;
}

// Kernels
Code cuModuleLoadData(Object** to, const void* image) {
    ENTER;
    BOUND;
    NEEDS(image && (uintptr_t)image % 16 == 0);
    if (!strcmp(image, "bad image")) return NO_BINARY;
    *to = make(MODULE);
    return SUCCESS;
}
Code cuModuleUnload(Object* module) { ENTER; BOUND; return unmake(module, MODULE); }
Code cuModuleGetFunction(int** to, Object* module, const char* name) {
    ENTER;
    BOUND;
    NEEDS(module->kind == MODULE);
    if (strncmp(name, "fake", 4) && !getenv("FAKE_CUDA_KERNELS")) return NOT_FOUND;
    *to = &function;
    return SUCCESS;
}
Code cuFuncGetParamInfo(int* which, size_t index, size_t* offset, size_t* bytes) {
    ENTER;
    NEEDS(*which == FUNCTION && index == 0);
    *offset = 0;
    *bytes = PARAMS;
    return SUCCESS;
}
Code cuFuncGetAttribute(int* value, int attribute, int* which) {
    ENTER;
    NEEDS(*which == FUNCTION && attribute == 1);
    *value = 1024; // static shared memory
    return SUCCESS;
}
Code cuFuncSetAttribute(int* which, int attribute, int value) {
    ENTER;
    NEEDS(*which == FUNCTION && attribute == 8);
    most_shared = value;
    return SUCCESS;
}
Code cuLaunchKernel(int* which, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty, unsigned tz, unsigned shared,
                    Object* stream, void** params, void** extra) {
    ENTER;
    BOUND;
    NEEDS(which && *which == FUNCTION && x && y == 1 && z == 1 && threads && threads <= 1024 && ty == 1 && tz == 1);
    NEEDS(stream->kind == STREAM && params && params[0] && (uintptr_t)params[0] % 16 == 0 && !extra);
    NEEDS((int)shared <= most_shared);
    uint32_t* target;
    memcpy(&target, params[0], sizeof target);
    if (capturing) {
        capturing->target = target;
        capturing->nodes++;
    } else {
        ++*target;
    }
    return SUCCESS;
}

// Graphs: launches alone are recorded, all of one target.
Code cuStreamBeginCapture_v2(Object* stream, int mode) {
    ENTER;
    BOUND;
    NEEDS(stream->kind == STREAM && mode == 2 && !capturing);
    capturing = make(GRAPH);
    return SUCCESS;
}
Code cuStreamEndCapture(Object* stream, Object** to) {
    ENTER;
    BOUND;
    NEEDS(stream->kind == STREAM && capturing);
    *to = capturing;
    capturing = NULL;
    return SUCCESS;
}
Code cuGraphInstantiateWithFlags(Object** to, Object* graph, unsigned long long flags) {
    ENTER;
    BOUND;
    NEEDS(graph->kind == GRAPH && !flags);
    *to = make(GRAPH);
    **to = *graph;
    return SUCCESS;
}
Code cuGraphLaunch(Object* graph, Object* stream) {
    ENTER;
    BOUND;
    NEEDS(graph->kind == GRAPH && stream->kind == STREAM);
    if (graph->target) *graph->target += (uint32_t)graph->nodes;
    return SUCCESS;
}
Code cuGraphExecDestroy(Object* graph) { ENTER; BOUND; return unmake(graph, GRAPH); }
Code cuGraphDestroy(Object* graph) { ENTER; BOUND; return unmake(graph, GRAPH); }
