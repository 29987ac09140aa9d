//! Record types (IANA "Resource Record (RR) TYPEs"), with the mnemonics that people read.

use std::fmt;
use std::str::FromStr;

/// A record type by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rtype(pub u16);

macro_rules! rtypes {
    ($($name:ident = $number:literal, $mnemonic:literal;)*) => {
        impl Rtype {
            $(#[doc = $mnemonic] pub const $name: Self = Self($number);)*

            /// The IANA mnemonic, where there is one here.
            pub const fn mnemonic(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($mnemonic),)*
                    _ => None,
                }
            }
        }

        const MNEMONICS: &[(&str, Rtype)] = &[$(($mnemonic, Rtype::$name),)*];
    };
}

rtypes! {
    A = 1, "A";
    NS = 2, "NS";
    MD = 3, "MD";
    MF = 4, "MF";
    CNAME = 5, "CNAME";
    SOA = 6, "SOA";
    MB = 7, "MB";
    MG = 8, "MG";
    MR = 9, "MR";
    NULL = 10, "NULL";
    WKS = 11, "WKS";
    PTR = 12, "PTR";
    HINFO = 13, "HINFO";
    MINFO = 14, "MINFO";
    MX = 15, "MX";
    TXT = 16, "TXT";
    RP = 17, "RP";
    AFSDB = 18, "AFSDB";
    X25 = 19, "X25";
    ISDN = 20, "ISDN";
    RT = 21, "RT";
    NSAP = 22, "NSAP";
    NSAP_PTR = 23, "NSAP-PTR";
    SIG = 24, "SIG";
    KEY = 25, "KEY";
    PX = 26, "PX";
    GPOS = 27, "GPOS";
    AAAA = 28, "AAAA";
    LOC = 29, "LOC";
    NXT = 30, "NXT";
    SRV = 33, "SRV";
    NAPTR = 35, "NAPTR";
    KX = 36, "KX";
    CERT = 37, "CERT";
    A6 = 38, "A6";
    DNAME = 39, "DNAME";
    OPT = 41, "OPT";
    APL = 42, "APL";
    DS = 43, "DS";
    SSHFP = 44, "SSHFP";
    IPSECKEY = 45, "IPSECKEY";
    RRSIG = 46, "RRSIG";
    NSEC = 47, "NSEC";
    DNSKEY = 48, "DNSKEY";
    DHCID = 49, "DHCID";
    NSEC3 = 50, "NSEC3";
    NSEC3PARAM = 51, "NSEC3PARAM";
    TLSA = 52, "TLSA";
    SMIMEA = 53, "SMIMEA";
    HIP = 55, "HIP";
    CDS = 59, "CDS";
    CDNSKEY = 60, "CDNSKEY";
    OPENPGPKEY = 61, "OPENPGPKEY";
    CSYNC = 62, "CSYNC";
    ZONEMD = 63, "ZONEMD";
    SVCB = 64, "SVCB";
    HTTPS = 65, "HTTPS";
    SPF = 99, "SPF";
    NID = 104, "NID";
    L32 = 105, "L32";
    L64 = 106, "L64";
    LP = 107, "LP";
    EUI48 = 108, "EUI48";
    EUI64 = 109, "EUI64";
    TKEY = 249, "TKEY";
    TSIG = 250, "TSIG";
    IXFR = 251, "IXFR";
    AXFR = 252, "AXFR";
    MAILB = 253, "MAILB";
    MAILA = 254, "MAILA";
    ANY = 255, "ANY";
    URI = 256, "URI";
    CAA = 257, "CAA";
    AVC = 258, "AVC";
}

impl Rtype {
    /// Types that exist in messages only or not at all, never in a zone: OPT, 0 and 65535, and the Q
    /// and meta types 128 to 255 (RFC 6895 §3.1). The keeper signs none of them.
    pub const fn is_meta(self) -> bool {
        matches!(self.0, 0 | 41 | 128..=255 | 65_535)
    }

    /// Types that speak to the parent: CDS, CDNSKEY, CSYNC. None is taken from a primary.
    pub const fn speaks_to_parent(self) -> bool {
        matches!(self, Self::CDS | Self::CDNSKEY | Self::CSYNC)
    }

    /// Types that a KSK or CSK signs and a ZSK does not: DNSKEY, CDS, CDNSKEY (RFC 7344 §4.1 wants
    /// the latter two signed by a key that the parent has a DS of).
    pub const fn is_signed_by_ksk(self) -> bool {
        matches!(self, Self::DNSKEY | Self::CDS | Self::CDNSKEY)
    }

    /// Types that a signer makes itself: DNSKEY, RRSIG, NSEC, NSEC3, NSEC3PARAM.
    pub const fn is_signers_own(self) -> bool {
        matches!(self, Self::DNSKEY | Self::RRSIG | Self::NSEC | Self::NSEC3 | Self::NSEC3PARAM)
    }
}

impl fmt::Display for Rtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mnemonic() {
            Some(mnemonic) => f.write_str(mnemonic),
            None => write!(f, "TYPE{}", self.0), // RFC 3597 §5
        }
    }
}

/// A text that names no record type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no record type; write a mnemonic such as MX, or TYPE and a number up to 65535")]
pub struct UnknownRtype(pub String);

impl FromStr for Rtype {
    type Err = UnknownRtype;
    fn from_str(text: &str) -> Result<Self, UnknownRtype> {
        let upper = text.to_ascii_uppercase();
        if let Some((_, rtype)) = MNEMONICS.iter().find(|(mnemonic, _)| *mnemonic == upper) {
            return Ok(*rtype);
        }
        upper
            .strip_prefix("TYPE")
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| UnknownRtype(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip() {
        for (text, number) in [("A", 1), ("NSEC3PARAM", 51), ("NSAP-PTR", 23), ("TYPE65280", 65280)]
        {
            assert_eq!(text.parse(), Ok(Rtype(number)));
            assert_eq!(Rtype(number).to_string(), text);
        }
        assert_eq!("type1".parse(), Ok(Rtype::A));
        for bad in ["", "TYPE", "TYPE65536", "TYPE+1", "AAAAA"] {
            assert!(bad.parse::<Rtype>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ds_is_not_meta() {
        assert!(
            !Rtype::DS.is_meta()
                && Rtype::OPT.is_meta()
                && Rtype::ANY.is_meta()
                && Rtype(0).is_meta()
                && Rtype(65_535).is_meta()
        );
        assert!(!Rtype::URI.is_meta());
    }
}
