// Shared memory, and 16 bytes at once.
#pragma once

#ifndef PULLBACK_CHECKED

#define SHARED(type, name, count)                                                                        \
    static char name##_tag;                                                                              \
    type(&name)[count] = *reinterpret_cast<type(*)[count]>(                                              \
        ::emulator::static_array(&name##_tag, #name, sizeof(type) * (count))->begin)
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(::emulator::dynamic_array(#name)->begin)

template <class T>
using Shared = T*;

DEVICE float4 load4(const float* from) {
    float4 value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}
DEVICE void store4(float* to, float4 value) { __builtin_memcpy(to, &value, sizeof value); }
DEVICE float2 load2(const float* from) {
    float2 value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}
DEVICE void store2(float* to, float2 value) { __builtin_memcpy(to, &value, sizeof value); }

#else

#define SHARED(type, name, count) \
    static char name##_tag;       \
    const Shared<type> name(::emulator::static_array(&name##_tag, #name, sizeof(type) * (count)))
#define DYNAMIC_SHARED(type, name) const Shared<type> name(::emulator::dynamic_array(#name))

template <class T>
struct Value {
    using Type = T;
};
template <class T>
struct Value<const T> {
    using Type = T;
};

/// An element: converting it reads, assigning to it writes. Where a kernel's type is deduced (`auto`, the value of a shuffle), it has
/// to say the type: float(tile[i]).
template <class T>
class Element {
    using Plain = typename Value<T>::Type;

  public:
    Element(const emulator::Array* array, T* at) : array_(array), at_(at) {}

    operator Plain() const {
        check(false);
        return *at_;
    }
    const Element& operator=(Plain value) const {
        check(true);
        *at_ = value;
        return *this;
    }
    const Element& operator=(const Element& other) const { return *this = Plain(other); }
    const Element& operator+=(Plain value) const { return *this = Plain(*this) + value; }
    const Element& operator-=(Plain value) const { return *this = Plain(*this) - value; }
    const Element& operator*=(Plain value) const { return *this = Plain(*this) * value; }
    const Element& operator/=(Plain value) const { return *this = Plain(*this) / value; }
    const Element& operator|=(Plain value) const { return *this = Plain(*this) | value; }
    const Element& operator&=(Plain value) const { return *this = Plain(*this) & value; }

  private:
    void check(bool write) const {
        ::emulator::check_access(array_, reinterpret_cast<uintptr_t>(at_), sizeof(T), sizeof(T), write);
    }

    const emulator::Array* array_;
    T* at_;
};

template <class T>
class Shared {
  public:
    Shared() = default;
    explicit Shared(const emulator::Array* array) : array_(array), at_(reinterpret_cast<T*>(array->begin)) {}
    Shared(const emulator::Array* array, T* at) : array_(array), at_(at) {}
    operator Shared<const T>() const { return {array_, at_}; }

    template <class I>
    Element<T> operator[](I index) const {
        return {array_, moved(index)};
    }
    template <class I>
    Shared operator+(I index) const {
        return {array_, moved(index)};
    }
    template <class I>
    Shared& operator+=(I index) {
        at_ = moved(index);
        return *this;
    }

    /// COUNT elements from here on, read or written at once.
    template <u32 COUNT>
    T* several(bool write) const {
        ::emulator::check_access(array_, reinterpret_cast<uintptr_t>(at_), COUNT * sizeof(T), sizeof(T), write);
        return at_;
    }

    emulator::Place place() const { return {array_, reinterpret_cast<uintptr_t>(at_)}; }

  private:
    /// By integers: an index far outside is to be reported, not to be undefined.
    template <class I>
    T* moved(I index) const {
        return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(at_) + uintptr_t((long long)(index) * (long long)(sizeof(T))));
    }

    const emulator::Array* array_ = nullptr;
    T* at_ = nullptr;
};

template <u32 BYTES>
DEVICE void check_aligned(const float* at) {
    if (reinterpret_cast<uintptr_t>(at) % BYTES != 0) ::emulator::fault("%u bytes at once at an address that is not aligned to them", BYTES);
}
DEVICE float4 load4(const float* from) {
    check_aligned<16>(from);
    return {from[0], from[1], from[2], from[3]};
}
DEVICE void store4(float* to, float4 value) {
    check_aligned<16>(to);
    to[0] = value.x, to[1] = value.y, to[2] = value.z, to[3] = value.w;
}
DEVICE float4 load4(Shared<const float> from) {
    const float* at = from.template several<4>(false);
    return {at[0], at[1], at[2], at[3]};
}
DEVICE float4 load4(Shared<float> from) { return load4(Shared<const float>(from)); }
DEVICE void store4(Shared<float> to, float4 value) {
    float* at = to.template several<4>(true);
    at[0] = value.x, at[1] = value.y, at[2] = value.z, at[3] = value.w;
}
DEVICE float2 load2(const float* from) {
    check_aligned<8>(from);
    return {from[0], from[1]};
}
DEVICE void store2(float* to, float2 value) {
    check_aligned<8>(to);
    to[0] = value.x, to[1] = value.y;
}
DEVICE float2 load2(Shared<const float> from) {
    const float* at = from.template several<2>(false);
    return {at[0], at[1]};
}
DEVICE float2 load2(Shared<float> from) { return load2(Shared<const float>(from)); }
DEVICE void store2(Shared<float> to, float2 value) {
    float* at = to.template several<2>(true);
    at[0] = value.x, at[1] = value.y;
}

#endif
